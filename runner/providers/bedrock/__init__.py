"""`provider=bedrock`."""

from runner.providers.bedrock.provider import BedrockProvider as BedrockProvider
