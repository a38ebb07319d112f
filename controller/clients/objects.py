"""Objects of S3 services: an address with a signature, that any HTTP client can get.

botocore finds the credentials and signs, nothing else: it opens no connection for the object, so every host is
judged and every answer bounded where all downloads are.  Credentials come from a Secret, else from the process's
own environment, the standard AWS files, or a web identity token, never from a repository, and never from a
machine's metadata service.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from controller.clients.credentials import S3Login
from controller.clients.errors import Denied
from controller.clients.redact import redact

EXPIRES_S: Final = 900
"""How long a signed address is good for, seconds."""
DEFAULT_REGION: Final = "us-east-1"
_PROVIDERS: Final = ("env", "shared-credentials-file", "config-file", "assume-role-with-web-identity")
"""Where credentials may come from; what runs a command or asks the network of a machine is left out."""


def signed_url(url: str, *, endpoint: str = "", region: str = "", login: S3Login | None = None) -> str:
    """Sign an address `s3://bucket/key` for one GET; without credentials it stays unsigned.

    Args:
        url: bucket and key.
        endpoint: address of the service, `https://host[:port]`; empty for AWS.
        region: region of the bucket; default us-east-1, which other services accept.
        login: keys of a Secret; its endpoint and region, where it has them, stand over those given.

    Raises:
        Denied: ExtraMissing: botocore is not installed. CredentialsInvalid: they cannot be read.
    """
    try:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        raise Denied(
            "an s3:// address needs botocore, which is not installed: pip install 'mainspring[s3]'",
            reason="ExtraMissing",
        ) from None
    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        session = Session()
        chain = session.get_component("credential_provider")
        chain.providers = [p for p in chain.providers if p.METHOD in _PROVIDERS]
        if login is not None:
            session.set_credentials(login.access_key, login.secret_key, login.session_token or None)
            endpoint, region = login.endpoint or endpoint, login.region or region
        options: dict[str, Any] = {"s3": {"addressing_style": "path" if endpoint else "auto"}}
        options["signature_version"] = "s3v4" if session.get_credentials() else UNSIGNED
        client = session.create_client(
            "s3",
            region_name=region or session.get_config_variable("region") or DEFAULT_REGION,
            endpoint_url=endpoint or None,
            config=Config(**options),
        )
        signed = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=EXPIRES_S
        )
    except (BotoCoreError, ValueError) as error:
        raise Denied(
            f"s3://{quote(bucket)} cannot be signed for: {redact(str(error), limit=120)}",
            reason="CredentialsInvalid",
        ) from None
    return str(signed)
