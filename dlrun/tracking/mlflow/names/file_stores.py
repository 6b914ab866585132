"""Why the files of runs cannot be stored where a server sends their writers: S3 and its like."""

from __future__ import annotations

import re

from dlrun.tracking.mlflow.names.secrets import message

# modules of the stores of files, by the package to install
PACKAGES = {
    "boto3": "boto3",
    "botocore": "boto3",
    "azure": "azure-storage-blob azure-identity",
    "google": "google-cloud-storage",
}
LOGINS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
# answers of S3 that say the same however often it is asked
REFUSED = re.compile(
    r"\((AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|NoSuchBucket|403)\)"
)
LOGIN = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and MLFLOW_S3_ENDPOINT_URL for a store that is not Amazon's."
BESIDE = (
    "Or have the server itself store them: start it with --artifacts-destination, and without --no-serve-artifacts."
)


def explain_files(error: BaseException) -> str | None:
    """What is missing for the files, and what to type; None if it is about something else."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ImportError) and name in PACKAGES:
        package = PACKAGES[name]
        return f"The files of its runs need the package {name}: type `pip install {package}`.\n{BESIDE}"
    if type(error).__name__ in LOGINS:
        return f"The files of its runs are in a store with a login of its own: {message(error, 200)}\n{LOGIN}\n{BESIDE}"
    if REFUSED.search(str(error)):
        return f"The store of its files refuses: {message(error, 300)}\n{LOGIN}\n{BESIDE}"
    return None
