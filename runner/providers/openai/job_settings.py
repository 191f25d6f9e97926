"""Settings of batch jobs of OpenAI's API, and what each service that has it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import PositiveInt, StringConstraints

from runner.config.schema import NonEmptyStr, Section
from runner.providers.openai.endpoints import EndpointName
from runner.providers.protocols import JobDiscount, JobLimits

ApiPath = Annotated[str, StringConstraints(pattern=r"^/[\w/.-]+$")]
_MAX_BYTES = 200_000_000


class JobSettings(Section):
    """Settings of a provider's batch jobs.

    Attributes:
        completion_window: as in the API.
        endpoint: the job's `endpoint`; null is the service's own for `provider.endpoint`.
        line_url: every line's `url`; null is the service's own.
        max_requests: lines of a job's file; null is the service's own.
        keep_files: leave the job's files at the service.
    """

    completion_window: NonEmptyStr
    endpoint: ApiPath | None
    line_url: ApiPath | None
    max_requests: PositiveInt | None
    keep_files: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobApi:
    """What a service's documentation says of its batch jobs.

    Attributes:
        endpoints: a job's `endpoint`, by `provider.endpoint`.
        line_urls: a line's `url`, by `provider.endpoint`.
        max_requests: lines of a job's file.
        window: what `completion_window` means, with a place for it.
        discount: what a job costs less than single requests.
    """

    endpoints: Mapping[EndpointName, str]
    line_urls: Mapping[EndpointName, str]
    max_requests: int
    window: str
    discount: JobDiscount

    def limits(self, settings: JobSettings | None) -> JobLimits:
        """Return what one job may hold; without settings there is no job."""
        return JobLimits(
            min_requests=1,
            max_requests=(settings and settings.max_requests) or self.max_requests,
            max_bytes=_MAX_BYTES,
            window=self.window.format(settings.completion_window if settings else "24h"),
        )


_V1: Mapping[EndpointName, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
}
OPENAI_JOBS = JobApi(
    endpoints=_V1,
    line_urls=_V1,
    max_requests=50_000,
    window="up to {}, and then ends a job with what it has",
    discount=JobDiscount(ratio=0.5, source="OpenAI's help article 9197833, read 2026-11"),
)
_AZURE_DISCOUNT = JobDiscount(
    ratio=0.5, source="Microsoft's guide to Azure OpenAI batch deployments, against global standard, read 2026-11"
)
_AZURE_WINDOW = "{} as a target, and ends no job that takes longer"
AZURE_JOBS = JobApi(
    endpoints={**_V1, "chat": "/chat/completions"},
    line_urls=_V1,
    max_requests=100_000,
    window=_AZURE_WINDOW,
    discount=_AZURE_DISCOUNT,
)
"""Microsoft's guide has `/chat/completions` for the job of the v1 API while each line has `/v1/chat/completions`."""
_DATED: Mapping[EndpointName, str] = {**_V1, "chat": "/chat/completions", "completions": "/completions"}
AZURE_DATED_JOBS = JobApi(
    endpoints=_DATED, line_urls=_DATED, max_requests=100_000, window=_AZURE_WINDOW, discount=_AZURE_DISCOUNT
)
