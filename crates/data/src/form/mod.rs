//! What becomes of a row of a file before it is read: columns by other names, or the shapes of files that other
//! trainers describe.

mod axolotl;
mod columns;
mod factory;

pub use axolotl::Axolotl;
pub use columns::Columns;
pub use factory::Factory;

use crate::message::kind;
use serde_json::Value;

/// How the rows of a file stand in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// In columns that may have other names.
    Named(Columns),
    /// As an entry of LLaMA-Factory's `dataset_info.json` says.
    Factory(Factory),
    /// To be texts of a kind of axolotl's.
    Axolotl(Axolotl),
}

impl Default for Form {
    fn default() -> Self {
        Form::Named(Columns::default())
    }
}

impl Form {
    /// Whether rows are read as they stand.
    pub fn is_plain(&self) -> bool {
        *self == Form::default()
    }

    /// Columns that some row must have: what each is, and its name in the file.
    pub(crate) fn wanted(&self) -> &[(String, String)] {
        match self {
            // These ask for theirs in every row.
            Form::Named(_) | Form::Axolotl(_) => &[],
            Form::Factory(factory) => factory.named(),
        }
    }

    /// A row as rows are read. Messages of errors start with a verb: "row 3: " goes before.
    pub(crate) fn apply(&self, row: Value) -> Result<Value, String> {
        if self.is_plain() {
            return Ok(row);
        }
        let Value::Object(row) = row else {
            return Err(format!("is {}, not an object with named columns", kind(&row)));
        };
        match self {
            Form::Named(columns) => columns.rename(row),
            Form::Factory(factory) => factory.apply(row),
            Form::Axolotl(kind) => kind.apply(row),
        }
        .map(Value::Object)
    }
}
