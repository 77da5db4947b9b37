#!/usr/bin/env python3
"""Makes data/demo/: the images inside the binary that `residua demo` trains on and scores.

Sources (licences in data/demo/README.md):
- Fashion-MNIST, Zalando SE, MIT; as in Debian's package dataset-fashion-mnist.
- Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0; as in scikit-learn.

Everything is a fixed choice, no random numbers: of each class the first N images in the order of the original file,
kept in that order. The files are idx (big-endian header, then bytes), gzipped without name or date, so that the same
sources give the same bytes with the same zlib.

usage: make_demo_data.py [FOLDER WITH THE FASHION-MNIST .gz FILES]        (needs numpy and scikit-learn)
"""

import gzip
import pathlib
import sys

import numpy
from sklearn.datasets import load_digits

# Shirt and sneaker stay unseen: both have close relatives among the seen classes, which makes them near OOD.
HELD_OUT = (6, 7)
TRAIN_PER_CLASS = 750
TEST_PER_CLASS = 250
NEAR_PER_CLASS = 500


def read_idx(path):
    with gzip.open(path) as file:
        data = file.read()
    assert data[:3] == b"\0\0\x08", f"{path} is no idx file of bytes"
    dimensions = data[3]
    shape = numpy.frombuffer(data, ">u4", dimensions, 4)
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_idx(path, array):
    array = numpy.ascontiguousarray(array, numpy.uint8)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    with open(path, "wb") as file:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=9, mtime=0) as out:
            out.write(header + array.tobytes())
    print(f"{path.name:24} {str(array.shape):18} {path.stat().st_size:>9} bytes")


def first_of_each(labels, classes, count):
    chosen = numpy.concatenate([numpy.flatnonzero(labels == label)[:count] for label in classes])
    assert len(chosen) == count * len(classes), "the source has too few images"
    return numpy.sort(chosen)


def main():
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    target = pathlib.Path(__file__).resolve().parent.parent / "data" / "demo"
    target.mkdir(parents=True, exist_ok=True)
    train_images = read_idx(source / "train-images-idx3-ubyte.gz")
    train_labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    test_images = read_idx(source / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(source / "t10k-labels-idx1-ubyte.gz")
    seen = [label for label in range(10) if label not in HELD_OUT]

    train = first_of_each(train_labels, seen, TRAIN_PER_CLASS)
    write_idx(target / "train-images.gz", train_images[train])
    write_idx(target / "train-labels.gz", train_labels[train])
    test = first_of_each(test_labels, seen, TEST_PER_CLASS)
    write_idx(target / "test-images.gz", test_images[test])
    write_idx(target / "test-labels.gz", test_labels[test])
    near = first_of_each(test_labels, HELD_OUT, NEAR_PER_CLASS)
    write_idx(target / "near-images.gz", test_images[near])
    # Sixteen ink levels, spread over the whole range of a byte.
    digits = numpy.rint(load_digits().images * (255 / 16))
    write_idx(target / "far-images.gz", digits)


if __name__ == "__main__":
    main()
