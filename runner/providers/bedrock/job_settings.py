"""Settings of Bedrock's batch jobs, `provider.job`: types and bounds. The patterns are those of botocore's model."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from runner.config.schema import Address, NonEmptyStr, Section
from runner.errors import ConfigError

_S3_FOLDER = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-zA-Z0-9]+)*/?")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/\S+")


def _s3_folder(text: str) -> str:
    if not _S3_FOLDER.fullmatch(text):
        raise ValueError(f"{text!r} is no folder of S3: give s3://BUCKET/FOLDER")
    return text.rstrip("/")


def _role_arn(text: str) -> str:
    if not _ROLE.fullmatch(text):
        raise ValueError(f"{text!r} is no role: give its ARN, arn:aws:iam::ACCOUNT:role/NAME")
    return text


S3Folder = Annotated[NonEmptyStr, AfterValidator(_s3_folder)]
RoleArn = Annotated[NonEmptyStr, AfterValidator(_role_arn)]


class JobSettings(Section):
    """Where batch jobs have their files, and what they may do. A folder has no slash at its end."""

    api: Literal["invocation", "openai"]
    role_arn: RoleArn | None
    s3_input: S3Folder | None
    s3_output: S3Folder | None
    control_endpoint_url: Address | None
    s3_endpoint_url: Address | None
    min_records: PositiveInt
    timeout_hours: Annotated[int, Field(ge=24, le=168)]
    keep_files: bool

    def require(self, *names: str) -> None:
        """Raise ConfigError where one of these settings is not there."""
        if missing := [name for name in names if getattr(self, name) is None]:
            raise ConfigError("\n".join(f"provider.job.{name} is not set: give {_REQUIRED[name]}" for name in missing))


_REQUIRED = {
    "role_arn": "the ARN of an IAM role that bedrock.amazonaws.com may assume, and that reads and writes the folders",
    "s3_input": "a folder s3://BUCKET/FOLDER for the records of a job",
    "s3_output": "a folder s3://BUCKET/FOLDER for its results",
}
