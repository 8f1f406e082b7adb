"""Sound as images: a recording becomes a picture of its power in 32 mel bands over time."""

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # samples a second
_WINDOW = 256
_HOP = 160
_FRAMES = 32
_BANDS = 32
_SPAN = (_FRAMES - 1) * _HOP + _WINDOW
_LEVELS_PER_DECIBEL = 4


def log_mel(samples: NDArray[np.int16]) -> NDArray[np.uint8]:
    """A recording as an image of 32 frames (rows, time) x 32 mel bands (columns, low to high).

    The loudest 5,216 samples (0.652 s) of 8 kHz sound, zero-padded at the end when there are
    fewer, are cut into 32 Hann windows of 256 samples, 160 apart. The power spectrum of each goes
    through 32 triangular bands, evenly spaced from 100 to 4000 Hz on the mel scale
    ``1127 ln(1 + f / 700)``. A value is ``255 + 4 dB`` with the loudest value of the recording at
    0 dB, rounded and clipped to 0 to 255, so the range is 63.75 dB. Silence gives zeros.

    Args:
        samples: ``(T,)`` int16 at 8 kHz, any T.

    Returns:
        ``(32, 32)`` uint8.
    """
    signal = samples.astype(np.float64)
    if len(signal) > _SPAN:
        energy = np.concatenate(([0.0], np.cumsum(signal**2)))
        start = int(np.argmax(energy[_SPAN:] - energy[:-_SPAN]))
        signal = signal[start : start + _SPAN]
    signal = np.pad(signal, (0, _SPAN - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2
    bands = power @ _mel_bands().T
    loudest = bands.max()
    if loudest == 0:
        return np.zeros((_FRAMES, _BANDS), dtype=np.uint8)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 1e-12))
    levels: NDArray[np.float64] = np.clip(np.rint(255 + _LEVELS_PER_DECIBEL * decibels), 0, 255)
    return levels.astype(np.uint8)


def _mel_bands() -> NDArray[np.float64]:
    """``(32, 129)`` triangles over the bins of the spectrum."""
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (100, 4000))
    edges = 700 * np.expm1(np.linspace(low, high, _BANDS + 2) / 1127)
    bins = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    left, centre, right = (edges[i : i + _BANDS, np.newaxis] for i in range(3))
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles
