//! What people and scripts write.

use crate::config::Config;
use crate::control;

/// A configuration is understood, or refused with words.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::parse(text) {
        assert!(!error.to_string().is_empty());
    }
}

pub fn config_seeds() -> Vec<Vec<u8>> {
    let sample = include_bytes!("../../deploy/tain.toml");
    vec![sample.to_vec(), b"[journal]\ndir = \"/j\"\nsegment_size = \"1 MiB\"\nhard_limit = 4096\n".to_vec()]
}

/// Bodies and paths of requests.
pub fn api(data: &[u8]) {
    control::understand(data);
}

pub fn api_seeds() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"name":"old","url":"posix:///srv/old"}"#,
        r#"{"path":"/a/b","location":"old:/tree"}"#,
        r#"{"kind":"move","source":"/a/b","destination":"new:/t\\x41","notes":"","stopped":true}"#,
        "old:/tree/\\\\x",
    ];
    bodies.iter().map(|body| body.as_bytes().to_vec()).collect()
}
