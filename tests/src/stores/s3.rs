//! moto, an S3 server.

use std::process::Command;

/// Who puts an object owns it, and others may not read it. The server believes who somebody says he is.
pub(super) const AUTHORIZATION: &str = "authorization: AWS4-HMAC-SHA256 \
                                        Credential=AKIATESTKEY/20261120/us-east-1/s3/aws4_request, \
                                        SignedHeaders=host, Signature=none";

pub(super) const CREDENTIALS: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "AKIATESTKEY"),
    ("AWS_SECRET_ACCESS_KEY", "hidden"),
    ("AWS_REGION", "us-east-1"),
];

pub(super) fn server(port: &str) -> Command {
    let mut command = super::installed("GAPLESS_MOTO", "moto/bin/moto_server");
    command.args(["-H", "127.0.0.1", "-p", port]);
    command
}
