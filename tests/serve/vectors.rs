//! botocore's own protocol cases against the parser of parameters and the writer of answers.

use super::common::skip::skip;
use super::common::venv;
use serde::Deserialize;
use serde_json::Value;
use sporevm::error::{Code, Error};
use sporevm::http::model::Model;
use sporevm::http::query;
use sporevm::http::xml::{self, Dialect};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A case of `vectors.py`'s.
#[derive(Deserialize)]
struct Case {
    id: String,
    protocol: String,
    action: String,
    model: Value,
    /// What a client sends, and what it means by that; nothing of a value that nobody has a use
    /// for.
    #[serde(default)]
    parameters: Option<Vec<(String, String)>>,
    request: Option<Value>,
    /// What is to be answered.
    answer: Option<Value>,
    /// Of an error.
    message: Option<String>,
}

impl Case {
    fn dialect(&self) -> Dialect {
        if self.protocol == "ec2" { Dialect::Ec2 } else { Dialect::Query }
    }

    /// What a request says is what its client meant.
    fn understood(&self, parameters: &[(String, String)]) {
        let model = Model::parse(&self.model.to_string());
        let input = model.action(&self.action).unwrap().input.clone();
        let said = query::request(&model, input.as_deref(), parameters);
        match &self.request {
            Some(meant) => assert_eq!(said.unwrap(), *meant, "{}", self.id),
            None => {
                let code = said.unwrap_err().code();
                assert_eq!(code, Some(Code::InvalidParameterValue), "{}", self.id);
            }
        }
    }

    /// The status and body of an answer.
    fn answered(&self) -> (u16, String) {
        let (status, body) = match &self.message {
            Some(message) => {
                let error = Error::refused(Code::InvalidAction, message.clone());
                (400, xml::fault(self.dialect(), &error, "requestid").unwrap())
            }
            None => {
                let model = Model::parse(&self.model.to_string());
                let action = (self.action.as_str(), model.action(&self.action).unwrap());
                let answer = self.answer.as_ref().unwrap();
                (200, xml::answer(&model, self.dialect(), action, answer, "requestid").unwrap())
            }
        };
        (status, String::from_utf8(body).unwrap())
    }
}

/// botocore's source, which alone has the cases, of the version that is installed.
fn source(python: &Path) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("botocore-source");
    std::fs::create_dir_all(&dir).unwrap();
    let is_source = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().ends_with(".tar.gz")
    };
    if !std::fs::read_dir(&dir).unwrap().any(is_source) {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "-q", "--no-deps", "--no-binary", "botocore"]);
        let version = "import botocore; print(botocore.__version__)";
        let version = Command::new(python).args(["-c", version]).output().unwrap().stdout;
        let wanted = format!("botocore=={}", String::from_utf8(version).unwrap().trim());
        let downloaded = pip.arg(wanted).arg("-d").arg(&dir).output();
        if !downloaded.is_ok_and(|output| output.status.success()) {
            skip("botocore's source is missing: pip download has to work");
            return None;
        }
    }
    Some(dir)
}

#[test]
fn botocores_protocol_cases_are_understood_and_answered() {
    let Some(python) = venv::python() else { return };
    let Some(dir) = source(&python) else { return };
    let script = |verb: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/vectors.py");
        let output = Command::new(&python).arg(path).arg(verb).arg(&dir).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{verb}: {err}");
        err
    };
    println!("{}", script("cases"));
    let cases = std::fs::read(dir.join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let mut answers = BTreeMap::new();
    for case in &cases {
        match &case.parameters {
            Some(parameters) => case.understood(parameters),
            None => drop(answers.insert(&case.id, case.answered())),
        }
    }
    // Without maps and compression, which nothing here has.
    assert!(cases.len() >= 100 && answers.len() >= 50, "{} cases", cases.len());
    std::fs::write(dir.join("answers.json"), serde_json::to_vec(&answers).unwrap()).unwrap();
    script("answers");
}
