//! Google's store, as far as its XML API is that of S3 under other names of headers: before an S3 server, those
//! are translated. No server that can be installed has that API with its conditions, copies and uploads.

use std::sync::Arc;

use super::{
    proxy::{self, Fate, Hook, When},
    request, s3,
};

const TOKEN: &str = "hidden-token";

pub(super) const CREDENTIALS: &[(&str, &str)] = &[("GOOGLE_BEARER_TOKEN", TOKEN)];

const UNKNOWN: &str = "<Error><Code>AuthenticationRequired</Code><Message>Authentication required.</Message></Error>";
const NO_KEY: &str = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>";

/// Starts the translation before an S3 server; gives its address.
pub(super) fn before(server: &str) -> String {
    let moto = server.to_string();
    let hook: Hook = Arc::new(move |it, when| {
        if when == When::After {
            return Fate::GoesOn;
        }
        if it.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Fate::Answered("401 Unauthorized", UNKNOWN);
        }
        it.plain_slashes();
        // S3 does not tell that an object was not there to be deleted.
        if it.deletes() && request(&moto, "HEAD", &it.target(), s3::AUTHORIZATION, b"").0 == 404 {
            return Fate::Answered("404 Not Found", NO_KEY);
        }
        let (name, value) = s3::AUTHORIZATION.split_once(": ").expect("a header");
        it.rename("authorization", name, |_| value.to_string());
        it.rename("x-goog-if-generation-match", "if-none-match", |generation| {
            assert_eq!(generation, "0", "only the absence of an object is asked for");
            "*".to_string()
        });
        it.rename("x-goog-copy-source", "x-amz-copy-source", str::to_string);
        Fate::GoesOn
    });
    proxy::before(server, hook)
}
