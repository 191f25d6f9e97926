"""`provider=azure`."""

from runner.providers.azure.provider import AzureProvider as AzureProvider
