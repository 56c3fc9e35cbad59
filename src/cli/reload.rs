//! `runwatch reload`: asks the daemon to read its configuration again.

use super::exit::Exit;
use super::flags::Global;
use super::out::Out;
use super::socket::{Failure, connect, end};
use crate::control::ClientError;
use crate::run::text::one_line;

/// Asks the daemon to reload, and shows the result.
pub(super) async fn run(out: &Out, global: &Global) -> Exit {
    let result = async {
        let answer = connect(global).await?.reload().await;
        match answer {
            Ok(answer) => out.say(&format!("reloaded: {}", one_line(&answer.message))),
            Err(ClientError::Refused(problems)) => {
                out.error("the configuration is refused, and the old one kept:");
                out.note(&problems);
                return Ok(Exit::Config);
            }
            Err(error) => return Err(Failure::from(error)),
        }
        out.finish();
        Ok(Exit::Succeeded)
    };
    end(out, result.await)
}
