"""`provider=openai`."""

from runner.providers.openai.provider import OpenAIProvider as OpenAIProvider
