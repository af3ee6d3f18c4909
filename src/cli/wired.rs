//! Where the command line meets the service. INTEGRATOR: these two bodies are yours.

use super::DemoArgs;
use crate::config::Config;

/// INTEGRATOR: `crate::service::run(config)`.
pub(super) async fn serve(config: Config) -> anyhow::Result<()> {
    crate::service::run(config).await
}

/// INTEGRATOR: `crate::demo::run(args)`.
pub(super) async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let DemoArgs { dir, files, mib } = args;
    let _ = (dir, files, mib);
    anyhow::bail!("the demo is not built in yet")
}
