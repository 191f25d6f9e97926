"""`provider=openvino`."""

from runner.providers.openvino.provider import OpenVinoProvider as OpenVinoProvider
