//! The values that texts of settings stand for, each with its limits.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use gapless_common::address::{ObjectUrl, is_url};

use super::{ConfigError, ETCD_PASSWORD_VARIABLE, EtcdUser, Layers, NONE, Origin, Setting, Sourced, TOKEN_VARIABLE};
use crate::{
    objects::{ObjectError, is_built},
    secret::{PasswordSource, Secret, TokenSource},
};

pub(super) const MAX_SLOTS: u32 = 1024;
pub(super) const MAX_MEMORY_PER_SLOT_MIB: u32 = 1024 * 1024;
/// Below, a busy machine's scheduling ends leases; above, a lost worker is missed for too long.
pub(super) const LEASE_MS: std::ops::RangeInclusive<u32> = 200..=600_000;
pub(super) const HEARTBEAT_MS: std::ops::RangeInclusive<u32> = 20..=200_000;
/// etcd grants no shorter lease; above, a dead leader is missed for too long.
pub(super) const LEADER_TTL_S: std::ops::RangeInclusive<u32> = 2..=600;
/// etcd itself advises against more than 8 GiB.
pub(super) const ETCD_QUOTA_MIB: std::ops::RangeInclusive<u32> = 16..=64 * 1024;
const MAX_CLUSTER_NAME: usize = 64;

pub(super) fn sourced(sources: &[Sourced], setting: Setting) -> &Sourced {
    // `sources` is made from `Setting::ALL`, whose order is that of the enum.
    &sources[setting as usize]
}

pub(super) fn text(sources: &[Sourced], setting: Setting) -> &str {
    sourced(sources, setting).value.trim()
}

pub(super) fn parse<T>(
    sources: &[Sourced],
    setting: Setting,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    read(text(sources, setting)).map_err(|reason| {
        let Sourced { value, origin, .. } = sourced(sources, setting).clone();
        ConfigError::BadValue {
            setting,
            value,
            origin,
            reason,
        }
    })
}

pub(super) fn parse_number(
    sources: &[Sourced],
    setting: Setting,
    allowed: std::ops::RangeInclusive<u32>,
) -> Result<u32, ConfigError> {
    parse(sources, setting, |text| {
        text.parse()
            .ok()
            .filter(|number| allowed.contains(number))
            .ok_or_else(|| {
                format!(
                    "write a whole number from {} to {}: {}",
                    allowed.start(),
                    allowed.end(),
                    setting.about()
                )
            })
    })
}

pub(super) fn parse_path(sources: &[Sourced], setting: Setting) -> Result<PathBuf, ConfigError> {
    parse(sources, setting, |text| match text {
        "" => Err("write the path of a folder".to_string()),
        path if is_url(path) => {
            Err("write the path of a folder: object stores hold sources, sinks and scratch, not this".to_string())
        }
        path => Ok(PathBuf::from(path)),
    })
}

pub(super) fn folder_or_address(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("write the path of a folder, or an address, such as s3://bucket/scratch".to_string()),
        address if is_url(address) => match address.parse::<ObjectUrl>() {
            Ok(url) if !is_built(url.scheme) => Err(ObjectError::not_built(url.scheme, &url).message),
            Ok(url) => Ok(PathBuf::from(url.to_string())),
            Err(why) => Err(format!("the address {why}; write s3://bucket/scratch")),
        },
        path => Ok(PathBuf::from(path)),
    }
}

pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=MAX_CLUSTER_NAME if text.chars().all(allowed) => Ok(text.to_string()),
        _ => Err(format!(
            "write up to {MAX_CLUSTER_NAME} letters, digits, dashes, dots and underscores"
        )),
    }
}

pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = host.unwrap_or(text);
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && !name.contains('/') && port.parse().is_ok_and(|port: u16| port > 0) =>
        {
            Ok(host.to_string())
        }
        _ => Err("write HOST:PORT, such as coordinator-1:7070".to_string()),
    }
}

/// A file that may be left out.
pub(super) fn parse_file(sources: &[Sourced], setting: Setting) -> Result<Option<PathBuf>, ConfigError> {
    parse(sources, setting, |text| match text {
        "" => Err(format!("write the path of a file, or {NONE}")),
        NONE => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    })
}

/// A file named by flag or variable, then the variable with the token, then the configuration file.
pub(super) fn token_source(sources: &[Sourced], layers: &Layers) -> Result<TokenSource, ConfigError> {
    let file = parse_file(sources, Setting::TokenFile)?;
    let near = matches!(
        sourced(sources, Setting::TokenFile).origin,
        Origin::Flag(_) | Origin::Variable(_)
    );
    let given = layers.variables.get(TOKEN_VARIABLE).filter(|token| !token.is_empty());
    Ok(match (file, given) {
        (Some(file), _) if near => TokenSource::File(file),
        (_, Some(token)) => TokenSource::Given(Secret::new(token.trim())),
        (Some(file), None) => TokenSource::File(file),
        (None, None) => TokenSource::None,
    })
}

pub(super) fn etcd_user(sources: &[Sourced], layers: &Layers) -> Result<Option<EtcdUser>, ConfigError> {
    let name = match text(sources, Setting::EtcdUser) {
        NONE | "" => None,
        name => Some(name.to_string()),
    };
    let file = parse_file(sources, Setting::EtcdPasswordFile)?;
    let given = layers
        .variables
        .get(ETCD_PASSWORD_VARIABLE)
        .filter(|text| !text.is_empty());
    let near = matches!(
        sourced(sources, Setting::EtcdPasswordFile).origin,
        Origin::Flag(_) | Origin::Variable(_)
    );
    let password = match (file, given) {
        (Some(file), _) if near => Some(PasswordSource::File(file)),
        (_, Some(text)) => Some(PasswordSource::Given(Secret::new(text))),
        (Some(file), None) => Some(PasswordSource::File(file)),
        (None, None) => None,
    };
    match (name, password) {
        (Some(name), Some(password)) => Ok(Some(EtcdUser { name, password })),
        (Some(user), None) => Err(ConfigError::NoEtcdPassword { user }),
        (None, Some(_)) => Err(ConfigError::NoEtcdUser),
        (None, None) => Ok(None),
    }
}

/// Whether a URL without TLS names this machine, whatever the resolver says.
pub(super) fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn allow_paths(text: &str) -> Result<Vec<PathBuf>, String> {
    if text == "any" {
        return Ok(Vec::new());
    }
    let paths = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    let usable = |path: &Path| path.is_absolute() || path.to_str().is_some_and(is_url);
    match paths.iter().find(|path| !usable(path)) {
        Some(path) => Err(format!(
            "{}: write absolute paths, such as /srv/data, or addresses, such as s3://bucket/data",
            path.display()
        )),
        // Nothing allowed would be a worker that can do nothing: surely a slip.
        None if paths.is_empty() => Err("write at least one absolute path, or any".to_string()),
        None => Ok(paths),
    }
}

/// Names of variables, some with a `*` at their end.
pub(super) fn program_variables(text: &str) -> Result<Vec<String>, String> {
    if text == NONE {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_string()).collect();
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match names
        .iter()
        .find(|name| *name != "*" && !is_name(name.strip_suffix('*').unwrap_or(name)))
    {
        Some(name) => Err(format!(
            "{name:?} is no name of a variable: write such as AWS_*,MODEL_TOKEN, or {NONE}"
        )),
        None => match names.iter().find(|name| name.starts_with("GAPLESS_")) {
            Some(name) => Err(format!("{name} is a setting of Gapless, which no program gets")),
            None => Ok(names),
        },
    }
}

/// URLs of these schemes; `scheme` is the one of those that name none.
pub(super) fn parse_endpoints(
    sources: &[Sourced],
    setting: Setting,
    scheme: &str,
    schemes: &[&str],
) -> Result<Vec<String>, ConfigError> {
    parse(sources, setting, |text| {
        let endpoints: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| with_scheme(part, scheme))
            .collect();
        let known = |endpoint: &&String| {
            let parts = endpoint.split_once("://");
            parts.is_some_and(|(scheme, _)| schemes.contains(&scheme))
        };
        match endpoints.iter().find(|endpoint| !known(endpoint)) {
            Some(bad) => {
                let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST:PORT")).collect();
                Err(format!("{bad}: write {}", forms.join(" or ")))
            }
            None if endpoints.is_empty() => Err(format!("write at least one, such as {}", setting.default_text())),
            None => Ok(endpoints),
        }
    })
}

fn with_scheme(endpoint: &str, scheme: &str) -> String {
    if endpoint.contains("://") {
        endpoint.to_string()
    } else {
        format!("{scheme}://{endpoint}")
    }
}
