"""Whether a saved model is safe to load: what it may hold, and nothing else.

A ``.keras`` file is an archive of a configuration, that says which layers to build, and of weights. Keras builds what
a configuration names, and its safe mode refuses lambda layers; functions and layers that read files or addresses have
got past it before. birdlib's classifiers hold built-in layers alone, so anything else is refused before Keras sees it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
LARGEST_JSON = 2**26  # bytes; a configuration of EfficientNetV2B0 has 270,000
MODULES = ("keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints", "keras.activations")
MODULES += ("keras.optimizers", "keras.losses", "keras.metrics")  # of a compiled one; they are not built
MODELS = {"Functional", "Sequential", "Model", "DTypePolicy", "DTypePolicyMap", "GetItem"}
MODELS |= {"Add", "Subtract", "Multiply", "TrueDivide"}  # arithmetic on tensors, as some backbones write it
OWN = {"LayerScale"}  # layers of keras.applications that are no public ones
PLAIN = {"__ellipsis__", "__keras_tensor__", "__slice__", "__numpy__", "__tensor__", "__tuple__", "__set__"}
# Layers that run code, or read files and addresses, when they are built or called.
REFUSED = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
REFUSED |= {"StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup"}


class ArchiveError(ValueError):
    """A model file that is not what birdlib saves: what is in it that should not be."""


def check(path: Path) -> None:
    """Looks into a model file without loading it.

    Raises
    ------
    ArchiveError
        if it is no ``.keras`` archive, holds other files than a model has, names what is no built-in layer, or its
        weights point out of it.
    """
    if not zipfile.is_zipfile(path):
        raise ArchiveError("it is no .keras archive")
    with zipfile.ZipFile(path) as archive:
        inside = archive.infolist()
        names = [member.filename for member in inside]
        if strange := sorted(set(names) - MEMBERS):
            raise ArchiveError(f"it holds a file {strange[0]!r}, which no classifier has")
        if missing := sorted(MEMBERS - set(names)):
            raise ArchiveError(f"it lacks {missing[0]}")
        if len(names) > len(MEMBERS):
            raise ArchiveError("it holds a file twice")
        if large := [
            each.filename for each in inside if each.filename[-4:] == "json" and each.file_size > LARGEST_JSON
        ]:
            raise ArchiveError(f"its {large[0]} is larger than any classifier's")
        if packed := [each.filename for each in inside if each.file_size > 100 * max(1, each.compress_size)]:
            raise ArchiveError(f"its {packed[0]} unpacks to more than 100 times its size")
        for found in _named(json.loads(archive.read("config.json"))):
            _refuse(found)
        with archive.open("model.weights.h5") as weights:
            _refuse_links(weights)


def _named(tree: Any) -> Iterator[dict[str, Any]]:
    """Every part of a configuration that names something to build."""
    if isinstance(tree, dict):
        if "class_name" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _named(each)


def _refuse(found: dict[str, Any]) -> None:
    name, module = str(found["class_name"]), found.get("module")
    if module is None:
        allowed = name in PLAIN
    elif module in MODULES:
        allowed = name not in REFUSED
    else:
        allowed = str(module).partition(".")[0] == "keras" and name in MODELS | OWN
    if not allowed:
        raise ArchiveError(f"it asks for {f'{module}.{name}' if module else name}, which is no built-in layer")


def _refuse_links(file: Any) -> None:
    """Weights in HDF5 can lie in other files, by links, external storage or virtual data sets."""
    import h5py

    def walk(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ArchiveError(f"its weights {group.name}/{name} are a link")
            found = group[name]
            if isinstance(found, h5py.Group):
                walk(found)
            elif found.external or found.is_virtual:
                raise ArchiveError(f"its weights {found.name} lie in another file")

    with h5py.File(file, "r") as opened:
        walk(opened)
