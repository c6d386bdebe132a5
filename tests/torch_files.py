"""PyTorch files byte for byte as torch writes them, without torch."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np

KINDS = {"f4": "Float", "f2": "Half", "f8": "Double", "i8": "Long", "V2": "BFloat16"}


class Global:
    """Pickles as a reference to a global name."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):  # pickle wants reduce targets to be callable
        raise AssertionError


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj[1] if isinstance(obj, tuple) and obj[:1] == ("pid",) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
            return
        super().save(obj, save_persistent_id)


class Tensor:
    """A tensor of storage `key`; `view` as in the format before zip, () in zip."""

    function = "_rebuild_tensor_v2"

    def __init__(self, kind, key, count, offset, size, stride, view=()):
        storage = Global("torch", kind)
        self.pid = ("pid", ("storage", storage, key, "cpu", count, *view))
        self.rest = (offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return Global("torch._utils", self.function), (self.pid, *self.rest)


class OldTensor(Tensor):
    """As torch 0.3 wrote them (torchvision's VGG-16 is of that time)."""

    function = "_rebuild_tensor"

    def __reduce__(self):
        return Global("torch._utils", self.function), (self.pid, *self.rest[:3])


def dumps(value) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def write_zip(path, value, storages, index=None):
    """`index` replaces the pickle of `value`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", dumps(value) if index is None else index)
        for key, array in storages.items():
            archive.writestr(f"x/data/{key}", array.tobytes())
    return path


def write_legacy(path, value, storages, index=None, **changes):
    """`index` replaces the pickle of `value`; `changes`: magic, protocol, system."""
    parts = {
        "magic": 0x1950A86A20F9469CFC6C,
        "protocol": 1001,
        "system": {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
        **changes,
    }
    with open(path, "wb") as file:
        for part in parts.values():
            pickle.dump(part, file, protocol=2)
        file.write(dumps(value) if index is None else index)
        pickle.dump(sorted(storages), file, protocol=2)
        for _, array in sorted(storages.items()):
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def save(path, state, legacy=False, wrap=None, old=False):
    """A state dict of numpy arrays; `wrap` puts it into what is saved."""
    tensors, storages = collections.OrderedDict(), {}
    for i, (name, array) in enumerate(state.items()):
        array = np.asarray(array, order="C")
        key = array.dtype.str[1:]
        kind = f"{KINDS[key]}Storage"
        stride = tuple(s // array.itemsize for s in array.strides)
        make = OldTensor if old else Tensor
        tensors[name] = make(
            kind, str(i), array.size, 0, array.shape, stride, (None,) if legacy else ()
        )
        storages[str(i)] = array.reshape(-1)
    value = wrap(tensors) if wrap else tensors
    return (write_legacy if legacy else write_zip)(path, value, storages)
