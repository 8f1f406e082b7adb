"""Windows of a three-axis accelerometer, made up: still, walk, run and shake.

Nothing is recorded: each window is a gravity of any direction, which tilts a little, a movement of
its activity, and noise. 128 samples, 50 a second, are signed 8-bit values of 1/32 g, stored as
``value + 128``, (N, 128, 3): sample by sample, the axes side by side, as a sensor gives them.
The same seed gives the same windows::

    python examples/sensor/make_windows.py build/sensor/windows.npz
"""

import sys
from pathlib import Path

import numpy as np

ACTIVITIES = ("still", "walk", "run", "shake")
SAMPLES, RATE = 128, 50.0  # samples a window, and a second
COUNTS = 32.0  # a g


def direction(rng: np.random.Generator) -> np.ndarray:
    """(3,): of length 1, any direction as likely as any other."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def window(activity: str, rng: np.random.Generator) -> np.ndarray:
    """(SAMPLES, 3) int8."""
    seconds = np.arange(SAMPLES) / RATE
    down, aside = direction(rng), direction(rng)
    tilt = np.cumsum(rng.normal(0.0, 0.004, (SAMPLES, 3)), axis=0)

    def wave(hertz: float) -> np.ndarray:
        return np.sin(2 * np.pi * (hertz * seconds + rng.random()))

    moved = np.zeros((SAMPLES, 3))
    if activity == "walk":
        pace, strength = rng.uniform(1.4, 2.3), rng.uniform(0.2, 0.5)
        moved += np.outer(wave(pace) + 0.4 * wave(2 * pace), strength * down)
        moved += np.outer(wave(pace / 2), 0.5 * strength * aside)
    elif activity == "run":
        pace, strength = rng.uniform(2.3, 3.4), rng.uniform(0.6, 1.5)
        moved += np.outer(wave(pace) + 0.5 * wave(2 * pace), strength * down)
        moved += np.outer(wave(pace / 2), 0.3 * strength * aside)
    elif activity == "shake":
        pace, strength = rng.uniform(4.0, 7.0), rng.uniform(0.5, 2.0)
        moved += np.outer(wave(pace), strength * aside)
    noise = rng.normal(0.0, rng.uniform(0.01, 0.06), (SAMPLES, 3))
    return np.clip(np.rint(COUNTS * (down + tilt + moved + noise)), -128, 127).astype(np.int8)


def windows(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(count, SAMPLES, 3) uint8, which are value + 128, and their labels."""
    labels = np.arange(count) % len(ACTIVITIES)
    values = np.stack([window(ACTIVITIES[label], rng) for label in labels])
    return (values.astype(np.int16) + 128).astype(np.uint8), labels


def main(path: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    x_train, y_train = windows(4000, rng)
    x_test, y_test = windows(1000, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=np.array(ACTIVITIES),
    )
    print(f"{path}: {len(x_train)} windows to train, {len(x_test)} to test")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/sensor/windows.npz"))
