//! Values of options: a text goes in, and the value or a message comes out.

use std::time::Duration;

/// Time until another agent may take over a name no longer kept; `None` for never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takeover(pub(super) Option<Duration>);

/// Seconds, or `never`.
pub(super) fn takeover(text: &str) -> Result<Takeover, &'static str> {
    if text == "never" {
        return Ok(Takeover(None));
    }
    match seconds(text) {
        Ok(time) if time >= 1.0 => Ok(Takeover(Some(Duration::from_secs_f64(time)))),
        _ => Err("expected 1 to 86400, or `never`"),
    }
}

/// The addresses of etcd in one value of `--etcd`.
#[derive(Clone, Debug)]
pub(super) struct Endpoints(pub(super) Vec<String>);

/// Parses addresses with commas between them, with blanks around them and a comma at the end.
pub(super) fn endpoints(text: &str) -> Result<Endpoints, String> {
    let all = text.split(',').map(str::trim).filter(|own| !own.is_empty()).map(endpoint);
    match all.collect::<Result<Vec<_>, _>>()? {
        all if all.is_empty() => Err(format!("expected {ENDPOINT}")),
        all => Ok(Endpoints(all)),
    }
}

const ENDPOINT: &str = "HOST:PORT, http://HOST:PORT or https://HOST:PORT";

/// Checks for `HOST:PORT`, or a URL of it, and removes a slash at the end.
fn endpoint(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let address = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let address = address.unwrap_or(text);
    if address.contains('@') {
        return Err("a name does not belong into an address: use --etcd-user".to_owned());
    }
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
    let is_bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address stands in brackets: [{host}]:{port}"));
    }
    let is_host = is_bracketed || !host.is_empty() && host.chars().all(is_plain);
    if !is_host || port.parse::<u16>().is_err() {
        return Err(format!("expected {ENDPOINT}, not '{text}'"));
    }
    Ok(text.to_owned())
}

/// Checks for the URL of a server.
pub(super) fn server_url(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match address {
        Some(address) if !address.trim_matches('/').is_empty() => Ok(text.to_owned()),
        _ => Err("expected http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

/// Splits `KEY=VALUE`.
pub(super) fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A number of seconds, up to a day.
pub(super) fn seconds(text: &str) -> Result<f64, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0 to 86400") }
}
