//! The systemd unit of `config/`, by systemd's own word. `tests/tidy/deployment.rs` compares all such files with the code.

use std::process::Output;

use crate::harness::{project_root, run, scratch, tethered};

/// The unit as it stands, but for where the program is, after a change.
async fn verify(change: impl FnOnce(String) -> String) -> (Output, String) {
    let text = std::fs::read_to_string(project_root().join("config/vigie.service"));
    let text = text.expect("the project has a unit");
    let (installed, built) = ("/usr/local/bin/vigie", env!("CARGO_BIN_EXE_vigie"));
    assert_eq!(text.matches(&format!("ExecStart={installed} ")).count(), 1);
    let start = format!("ExecStart={built} ");
    let text = text.replace(&format!("ExecStart={installed} "), &start);
    let (_directory, folder) = scratch();
    let unit = folder.join("vigie.service");
    std::fs::write(&unit, change(text)).expect("the folder is ours");
    let mut command = tethered("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(&unit);
    let output = run(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// Goal: systemd understands every line of the unit. Method: its own check, which says nothing; a word that it does not
/// know is told.
#[tokio::test]
async fn the_unit_is_understood() {
    let (output, said) = verify(|unit| unit).await;
    let about_it = said.lines().find(|line| line.contains("vigie.service"));
    assert!(output.status.success() && about_it.is_none(), "{said}");
    let (_, said) = verify(|unit| unit.replace("LimitNOFILE=", "LimitNofiles=")).await;
    assert!(said.contains("LimitNofiles"), "{said}");
}
