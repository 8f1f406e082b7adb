"""A network in your own training loop, from plain PyTorch to C: 1,797 digits of 8x8 pixels.

Needs scikit-learn for the data. Takes some seconds::

    python examples/own_loop.py build/own_loop
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits

import edgebnn
import edgebnn.nn as bnn


def main(folder: Path) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).clamp(max=15).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    test = torch.arange(len(labels)) % 5 == 0

    model = bnn.Sequential(
        bnn.Input((1, 8, 8), bits=4),
        bnn.BinaryConv2d(1, 32, 3, padding=1),
        bnn.MaxPool2d(2),
        bnn.BatchNorm(32),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(32 * 4 * 4, 10),
        bnn.OutputNorm(10),
    )
    epochs = 20
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        order = torch.randperm(int((~test).sum()))
        for batch in order.split(64):
            loss = bnn.square_hinge(model(images[~test][batch]), labels[~test][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bnn.clip_latent_(model)  # all that a binarized network adds to a step
        schedule.step()

    order = torch.randperm(int((~test).sum()))
    bnn.recalibrate(model, images[~test][order], batch_size=64)  # and the model is in eval mode
    with torch.no_grad():
        accuracy = float((model(images[test]).argmax(1) == labels[test]).float().mean())
    folder.mkdir(parents=True, exist_ok=True)
    edgebnn.save(model, folder / "digits.pt", test_accuracy=accuracy)
    library = edgebnn.generate(folder / "digits.pt", target="cortex-m0")
    edgebnn.write(library, folder / "digits", force=True)
    print(f"test accuracy {100 * accuracy:.2f} %")
    print(
        f"{folder}/digits: {library.constant_bytes} bytes of constants, {library.arena_bytes} RAM"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/own_loop"))
