//! Azurite, the emulator of Azure's store.

use std::process::Command;

use super::BUCKET;

pub(super) const ACCOUNT: &str = "gaplesstest";

const KEY: &str = "hiddenhiddenhiddenhiddenhiddenhiddenhiddenhiddenhiddenhidden";

pub(super) const CREDENTIALS: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
    ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
];

/// A shared access signature of the account, by which the tests' own requests come in: all that it may, until
/// the year 2100. `sig` is the HMAC-SHA256, under the key, of the other values in the order of Azure's page
/// "Create an account SAS".
pub(super) const SIGNED: &str = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlacup&se=2100-01-01T00%3A00%3A00Z&spr=https,http&\
                                 sig=jHGRBawKkkkybjGasnDCjNR6%2FDn5gf45y6bUbqN7kB4%3D";

/// What a put must tell.
pub(super) const KIND_OF_BLOB: &str = "x-ms-blob-type: BlockBlob";

/// What is asked for: an object, or with an empty key the container.
pub(super) fn target(key: &str, query: &str) -> String {
    let path = format!("/{ACCOUNT}/{BUCKET}/{key}");
    format!("{}?{query}&{SIGNED}", path.trim_end_matches('/'))
}

pub(super) fn server(port: &str) -> Command {
    let mut command = super::installed("GAPLESS_AZURITE", "azurite/node_modules/.bin/azurite-blob");
    command
        .args(["--blobHost", "127.0.0.1", "--blobPort", port])
        .args(["--inMemoryPersistence", "--silent", "--disableTelemetry"])
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
    command
}
