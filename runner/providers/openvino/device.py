"""Properties of a device of OpenVINO, and what the device makes of them.

Source: OpenVINO 2026.4, "CPU device" and "Precision control" (https://docs.openvino.ai).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

Precision = Literal["auto", "bf16", "f32"]
KvCachePrecision = Literal["auto", "u8", "f16", "bf16", "f32"]

_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "u8": "uint8", "i8": "int8", "u4": "uint4"}
"""OpenVINO's names of types, and those that other providers use."""


def properties_of(precision: Precision, kv_cache_precision: KvCachePrecision) -> dict[str, Any]:
    """Return the properties that a model is compiled with.

    By itself, the CPU keeps the cache in 8 bits and multiplies quantized weights with activations in 8 bits, whatever
    the precision. With f32 both are off, unless the cache's precision is set.
    """
    properties: dict[str, Any] = {} if precision == "auto" else {"INFERENCE_PRECISION_HINT": precision}
    if precision == "f32":
        properties |= {"KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    if kv_cache_precision != "auto":
        properties |= {"KV_CACHE_PRECISION": kv_cache_precision}
    return properties


def check_device(device: str, precision: Precision) -> None:
    """Make sure that the machine has the device, and that the device has the precision.

    Raises:
        ConfigError: it has not.
    """
    from openvino import Core

    core = Core()
    devices = core.available_devices
    if device.partition(".")[0] not in {name.partition(".")[0] for name in devices}:
        raise ConfigError(f"provider.device={device!r}: OpenVINO finds on this machine: {', '.join(devices)}")
    if precision == "bf16" and "BF16" not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError(
            f"provider.precision='bf16': {_device_name(core, device)} has no instructions for it, and OpenVINO would "
            "compute in f32: set provider.precision=f32 or auto"
        )


def describe_device(device: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a device makes of the properties: precisions, threads, and its name.

    A pipeline does not give its compiled model away. A model of one node, compiled with the same properties, resolves
    them in the same way.
    """
    from openvino import Core, Model, Type, opset13

    core = Core()
    parameter = opset13.parameter([1], Type.f32)
    compiled = core.compile_model(Model([opset13.relu(parameter)], [parameter]), device, dict(properties))
    described = {
        "device": device,
        "device_name": _device_name(core, device),
        "dtype": _dtype(compiled, "INFERENCE_PRECISION_HINT"),
        "kv_cache_dtype": _dtype(compiled, "KV_CACHE_PRECISION"),
        "dynamic_quantization_group_size": int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")),
    }
    if device == "CPU":
        described["threads"] = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    return described


def _dtype(compiled: "CompiledModel", name: str) -> str:
    type_name: str = compiled.get_property(name).get_type_name()
    return _DTYPES.get(type_name, type_name)


def _device_name(core: "Core", device: str) -> str:
    return str(core.get_property(device, "FULL_DEVICE_NAME"))
