"""What the answers of an MLflow server mean, and of what stands before it: gateways, TLS."""

from __future__ import annotations

import os
import re

from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.secrets import hide_secrets, message

# MLflow's names of answers, for errors that do not have the number
STATUS = {
    "UNAUTHENTICATED": 401,
    "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
}
# MLflow takes the first that is set; requests takes the others, in this order
AUTHORITIES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
LOGIN = (
    "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and type `dlrun sync`.\n"
    "A login that changes while runs are trained is read again from ~/.mlflow/credentials, a token from the file that "
    "DLRUN_TRACKING_TOKEN_FILE names."
)
# a gateway says so in words of its own
REFUSED_LOGIN = re.compile(
    r"unauthori[sz]ed|unauthenticated|not authenticated|expired|\b(?:jwt|token|log[ -]?in)\b", re.I
)


def status_of(error: BaseException) -> int | None:
    """The number of the HTTP answer that an error is about."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status
    if found := re.search(r"failed with error code (\d{3}) ", str(error)):
        return int(found[1])
    return STATUS.get(getattr(error, "error_code", ""))


def explain_answer(error: BaseException, address: Address) -> str | None:
    """What an answer means and what to type; None if the same call may succeed later."""
    said, status = message(error, 300), status_of(error)
    if "Invalid Host header" in said:
        return (
            f"The server at {address} does not know itself by this name: start it with --allowed-hosts NAME,NAME:PORT."
        )
    if status == 401 or (_is_foreign(error) and REFUSED_LOGIN.search(said)):
        return f"The store {address} refuses (no login): {said}\n{LOGIN}"
    if status == 403:
        return (
            f"The store {address} refuses (no permission): {said}\n"
            "Ask its administrator for EDIT on the experiment, or type tracking.experiment=NAME with one of your own."
        )
    if status == 404 and not _is_json(error):
        return f"There is no MLflow at {address}: {said}\nCheck MLFLOW_TRACKING_URI, and its path, if it has one."
    if status == 413:
        return (
            f"What stands before the server at {address} takes no file of this size: {said}\n"
            "Raise its limit (nginx: client_max_body_size), or leave tracking.log_checkpoints and log_model at false."
        )
    if "not in a valid JSON format" in said:
        return (
            f"{address} answers with a page, as another program or the page of a login does: {said}\n"
            f"Check MLFLOW_TRACKING_URI. {LOGIN}"
        )
    return None


def explain_tls(error: BaseException, address: Address) -> str | None:
    """What is wrong with a server's certificate, or with the file of authorities, and what to type."""
    said = hide_secrets(str(error))
    name, file = next(((name, os.environ[name]) for name in AUTHORITIES if os.environ.get(name)), (AUTHORITIES[0], ""))
    if "Could not find a suitable TLS CA certificate bundle" in said or "NO_CERTIFICATE_OR_CRL_FOUND" in said:
        return f"{name} is `{file}`, which is no file of certificates. Set it to the one of your authority (ca.pem)."
    if "WRONG_VERSION_NUMBER" in said or "record layer failure" in said.lower():
        plain = str(address).replace("https:", "http:", 1)
        return f"{address} does not speak TLS: set MLFLOW_TRACKING_URI={plain}."
    if "CERTIFICATE_VERIFY_FAILED" not in said:
        return None
    why = re.search(r"certificate verify failed: ([^(\"']*)", said)
    reason = why[1].strip() if why else "it cannot be verified"
    if "mismatch" in reason.lower() or "is not valid for" in reason:
        return f"The certificate of {address} is for other names: {reason}. Set MLFLOW_TRACKING_URI to one of them."
    if "expired" in reason:
        return f"The certificate of {address} has expired: its administrator has to renew it."
    beside = f" {name} is `{file}`: it has other authorities." if file else ""
    return (
        f"The certificate of {address} is of no known authority ({reason}).{beside}\n"
        f"Set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its authority (ca.pem)."
    )


def _is_json(error: BaseException) -> bool:
    return isinstance(getattr(error, "json", None), dict)


def _is_foreign(error: BaseException) -> bool:
    """Whether the answer is JSON, but not MLflow's."""
    answer = getattr(error, "json", None)
    return isinstance(answer, dict) and "error_code" not in answer
