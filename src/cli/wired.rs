//! Where the command line meets the service.

use super::DemoArgs;
use crate::config::Config;

pub(super) async fn serve(config: Config) -> anyhow::Result<()> {
    crate::service::run(config).await
}

pub(super) async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let DemoArgs { dir, files, mib, clients } = args;
    crate::demo::run::run(crate::demo::run::Options { dir, files, mib, clients }).await
}
