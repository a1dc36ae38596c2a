"""What a user can do about an error of an S3 store; the libraries that raise it quote the server's answer."""

# Parts of messages (of Lance, DVC and pyarrow), in the order in which they are looked for, and the remedy.
_REMEDIES = (
    (
        (
            *("SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "403", "Forbidden", "credentials"),
            *("SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "ACCESS_DENIED"),
        ),
        "The S3 server refuses the credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an IAM role.",
    ),
    (("NoSuchBucket", "NO_SUCH_BUCKET"), "There is no such bucket: create it, or correct its name."),
    (("BadScheme",), "AWS_ENDPOINT_URL begins with http://, which needs AWS_ALLOW_HTTP=true."),
    (
        ("ConnectError", "Could not connect to the endpoint", "dns error", "RetryError", "NETWORK_CONNECTION"),
        "No S3 server answers: set AWS_ENDPOINT_URL, unless it is Amazon's.",
    ),
)


def s3_remedy(message: str) -> str:
    """A sentence that says what is wrong and what to set; empty for an unknown message.

    Args:
        message: of an error of an S3 store.
    """
    return next((remedy for parts, remedy in _REMEDIES if any(part in message for part in parts)), "")
