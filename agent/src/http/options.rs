//! Options of what is served by HTTP.

use clap::Args;

/// Options of `run` about HTTP.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct HttpArgs {
    /// Serves /metrics for Prometheus and /healthz here; PORT alone: at 127.0.0.1
    #[arg(long, value_name = "[HOST:]PORT", value_parser = address)]
    pub(super) metrics: Option<String>,
    /// Serves a page here that shows agents, workloads, subscriptions and events as they come, read-only;
    /// PORT alone: at 127.0.0.1
    #[arg(long, value_name = "[HOST:]PORT", value_parser = address)]
    pub(super) page: Option<String>,
}

/// The address of `PORT` or `HOST:PORT`.
fn address(text: &str) -> Result<String, String> {
    if text.parse::<u16>().is_ok() {
        return Ok(format!("127.0.0.1:{text}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("give PORT or HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_alone_is_of_the_loopback() {
        assert_eq!(address("9100"), Ok("127.0.0.1:9100".to_owned()));
        assert_eq!(address("[::1]:0"), Ok("[::1]:0".to_owned()));
        for wrong in ["", ":9100", "host", "host:", "host:99999", "-1"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
