//! Which rows of a data set a command reads.

use clap::Args;
use duel_data::{Columns, Files, Form};
use duel_hub::Rows;
use duel_train::{Error, files};
use std::path::Path;

/// What is said beside `--dataset`, where that is a folder of files or a name on the Hub.
#[derive(Args)]
pub struct Which {
    /// Configuration of a dataset that has several [default: its default one]
    #[arg(long, value_name = "NAME")]
    dataset_config: Option<String>,
    /// Split of a dataset that is no file
    #[arg(long, value_name = "NAME", default_value = USUAL)]
    dataset_split: String,
    /// Files of a dataset, as PATTERN of the split train or SPLIT=PATTERN, with commas [default: those that its README
    /// or their names say]
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    data_files: Vec<String>,
    /// What columns are called, as NAME=COLUMN with commas: prompt=question,chosen=good
    #[arg(long, value_name = "COLUMNS")]
    columns: Option<Columns>,
}

const USUAL: &str = "train";

/// Nothing is said.
impl Default for Which {
    fn default() -> Self {
        Which { dataset_config: None, dataset_split: USUAL.into(), data_files: Vec::new(), columns: None }
    }
}

impl Which {
    /// The files of the data set `said`: a file, a folder, or what is in the cache or on the Hub by that name.
    ///
    /// # Errors
    /// There is no such data set, configuration or split.
    pub fn files(&self, said: &Path) -> Result<Files, Error> {
        let asked = Rows {
            name: said.to_owned(),
            config: self.dataset_config.clone(),
            split: self.dataset_split.clone(),
            data_files: self.data_files.clone(),
        };
        let files = files(&asked, USUAL)?;
        if files.name() != said {
            duel_train::say!("dataset {} is {}", said.display(), files.name().display());
        }
        Ok(files.in_form(Form::Named(self.columns.clone().unwrap_or_default())))
    }
}
