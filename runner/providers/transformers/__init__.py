"""`provider=transformers`."""

from runner.providers.transformers.provider import TransformersProvider as TransformersProvider
