//! What is said of a model or a data set beside its name.

use super::foreign::Dialect;
use super::table::Options;
use super::values::{EvalStrategy, Maybe};
use duel_hub::{Kind, Name};

impl Options {
    /// These options but for what they say of a model or a data set whose place another one takes in `wins`: a split
    /// of one says nothing of another. A key alone is of the same file, and contradicts what else is there.
    pub(super) fn beside(mut self, wins: &Self) -> Self {
        let replaced =
            |mine: &Option<_>, other: &Option<_>| mine.is_some() && other.is_some() && mine != other;
        if replaced(&self.model, &wins.model) {
            self.model_revision = None;
        }
        let is_whole = self.given().len() > 1;
        let mixed = is_whole && matches!(&wins.datasets, Some(Maybe(Some(_))));
        let unmixed = is_whole && wins.dataset.is_some() && self.datasets.is_some();
        if mixed || unmixed || replaced(&self.dataset, &wins.dataset) {
            self.columns = None;
            self.dataset_config = None;
            self.dataset_train_split = None;
            self.dataset_test_split = None;
            self.data_files = None;
            self.dataset_revision = None;
        }
        let evaluated = is_whole && matches!(&wins.eval_datasets, Some(Maybe(Some(_))));
        if evaluated || is_whole && wins.eval_dataset.is_some() && wins.eval_dataset != self.eval_dataset {
            self.dataset_test_split = None;
        }
        if evaluated {
            self.eval_dataset = None;
        }
        if mixed {
            self.dataset = None;
            self.recipe.forget_rows();
        }
        if is_whole && wins.dataset.is_some() && self.datasets.take().is_some_and(|all| all.0.is_some()) {
            let why = "the rows are those of the dataset that is named";
            self.recipe.idle.push(("datasets".into(), why.into()));
        }
        let replaced = is_whole && wins.eval_dataset.is_some();
        if replaced && self.eval_datasets.take().is_some_and(|all| all.0.is_some()) {
            let why = "the rows are those of the eval_dataset that is named";
            self.recipe.idle.push(("eval_datasets".into(), why.into()));
        }
        self
    }

    /// The key that says which rows are evaluated on.
    pub(super) fn evaluates_on(&self) -> Option<&'static str> {
        let said = [
            ("eval_datasets", self.eval_datasets.is_some()),
            ("eval_dataset", self.eval_dataset.is_some()),
            ("test_split_size", self.test_split_size.is_some()),
        ];
        said.into_iter().find(|(_, said)| *said).map(|(key, _)| key)
    }

    /// Rows to evaluate on are the test split of the data set where that is asked for, by its name or, in a recipe too,
    /// by the strategy.
    pub(super) fn settle_evaluation(&mut self, dialect: Option<Dialect>) {
        let holds_out = self.test_split_size.as_ref().is_some_and(|size| size.0.is_some());
        if holds_out && dialect.is_some() && self.dataset_test_split.take().is_some() {
            let why = "rows are held out by test_split_size".to_owned();
            self.recipe.idle.push(("dataset_test_split".into(), why));
        }
        let is_named = self.dataset.as_ref().is_some_and(|dataset| {
            let name = dataset.to_str().and_then(|said| Name::parse(Kind::Dataset, said));
            dataset.is_dir() || name.is_some() && !dataset.exists()
        });
        if !is_named || self.evaluates_on().is_some() {
            return;
        }
        let evaluates = self.eval_strategy.map(|strategy| strategy != EvalStrategy::No);
        match (evaluates, &self.dataset_test_split) {
            (Some(true), _) => {}
            (None, Some(_)) if dialect.is_none() => {}
            (_, Some(_)) => {
                self.dataset_test_split = None;
                let why = "there are no evaluations".to_owned();
                return self.recipe.idle.push(("dataset_test_split".into(), why));
            }
            (_, None) => return,
        }
        self.eval_dataset = self.dataset.clone().map(|dataset| Maybe(Some(dataset)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "model_name_or_path: org/name\nmodel_revision: v1\ndataset_name: org/rows\ndataset_config: en\n\
                          dataset_train_split: train_prefs\ndataset_test_split: test_prefs\n";

    /// As TRL: the test split is evaluated on where evaluations are asked for.
    #[test]
    fn recipes_name_rows_on_the_hub() {
        let options = Options::parse_recipe(&format!("{RECIPE}eval_strategy: epoch")).unwrap();
        let config = options.clone().resolve().unwrap();
        assert_eq!(
            (config.model_revision.as_deref(), config.dataset_config.as_deref()),
            (Some("v1"), Some("en"))
        );
        assert_eq!(
            (&*config.dataset_train_split, &*config.dataset_test_split),
            ("train_prefs", "test_prefs")
        );
        assert_eq!(config.eval_dataset.as_deref(), Some("org/rows".as_ref()));
        let alone = Options::parse_recipe(RECIPE).unwrap().settle().unwrap();
        assert_eq!(alone.recipe.notes(), ["`dataset_test_split`: there are no evaluations"]);
        assert_eq!(alone.resolve().unwrap().eval_dataset, None);
        // Another data set and another model on the command line have no such splits, and no such revision.
        let said =
            Options { model: Some("m".into()), dataset: Some("rows.jsonl".into()), ..Options::default() };
        let other = said.or(options.clone());
        assert_eq!(
            (other.model_revision, other.dataset_config, other.dataset_train_split),
            (None, None, None)
        );
        let same = Options { dataset: Some("org/rows".into()), ..Options::default() }.or(options);
        assert_eq!(same.dataset_train_split.as_deref(), Some("train_prefs"));
    }

    /// Rows that are named beside a file take the place of its own, with all that it says of them.
    #[test]
    fn rows_take_the_place_of_rows() {
        let file = |rows: &str| Options::parse(&format!("model = 'm'\n{rows}")).unwrap();
        let said = |rows: &str| Options::parse(rows).unwrap();
        let one = "dataset = 'org/rows'\ncolumns = 'prompt=q'\ndataset_config = 'en'\ndata_files = 'x/*'";
        let named = said("dataset = 'rows.jsonl'").or(file(one)).resolve().unwrap();
        assert_eq!((named.columns, named.data_files), (None, None));
        let mixed = said("datasets = ['a.jsonl', 'b.jsonl']").or(file(one)).resolve().unwrap();
        assert_eq!((mixed.dataset.to_str(), mixed.columns), (Some("a.jsonl + b.jsonl"), None));
        let other = said("dataset = 'rows.jsonl'").or(file("datasets = ['a.jsonl', 'b.jsonl']"));
        assert_eq!(other.recipe.notes(), ["`datasets`: the rows are those of the dataset that is named"]);
        assert_eq!(other.resolve().unwrap().datasets, None);
        let mixed = "datasets = ['a.jsonl']\neval_dataset = 'org/rows'\ndataset_test_split = 'x'";
        for named in ["dataset = 'rows.jsonl'\neval_dataset = 'e.jsonl'", "eval_dataset = 'e.jsonl'"] {
            let split = said(named).or(file(mixed)).resolve().unwrap().dataset_test_split;
            assert_eq!(split, "test", "{named}");
        }
        let several = "dataset = 'r.jsonl'\neval_datasets = ['a.jsonl', 'b.jsonl']";
        let evaluated = said("eval_dataset = 'e.jsonl'").or(file(several));
        let why = "`eval_datasets`: the rows are those of the eval_dataset that is named";
        assert_eq!(evaluated.recipe.notes(), [why]);
        assert_eq!(evaluated.resolve().unwrap().eval_dataset, Some("e.jsonl".into()));
        let one = "dataset = 'org/rows'\neval_dataset = 'org/other'\ndataset_test_split = 'x'";
        let evaluated = said("eval_datasets = ['a.jsonl', 'b.jsonl']").or(file(one)).resolve().unwrap();
        assert_eq!(evaluated.eval_dataset, Some("a.jsonl + b.jsonl".into()));
        let both = file(&format!("{several}\neval_dataset = 'c.jsonl'")).resolve().unwrap_err().to_string();
        assert!(both.contains("`eval_dataset` and `eval_datasets` are both given"), "{both}");
        let split = file(&format!("{several}\ndataset_test_split = 'x'")).resolve().unwrap_err().to_string();
        assert!(split.contains("`dataset_test_split` says nothing of `eval_datasets`"), "{split}");
        let both = file("dataset = 'rows.jsonl'\ndatasets = ['a.jsonl']").resolve().unwrap_err().to_string();
        assert!(both.contains("both given"), "{both}");
    }

    #[test]
    fn a_split_that_nothing_reads_is_refused() {
        let of = |rows: &str| Options::parse(&format!("model = 'm'\n{rows}")).unwrap().resolve();
        let wrong = |rows: &str, part: &str| {
            let e = of(rows).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        };
        let all = "datasets = ['a.jsonl']";
        wrong(
            &format!("{all}\ndataset_train_split = 'x'"),
            "`dataset_train_split` says nothing of `datasets`",
        );
        assert!(of(&format!("{all}\ndataset_train_split = 'train'")).is_ok());
        assert!(of(&format!("{all}\neval_dataset = 'org/rows'\ndataset_test_split = 'x'")).is_ok());
        for rows in [all, "dataset = 'org/rows'"] {
            let held_out = format!("{rows}\ntest_split_size = 0.1\ndataset_test_split = 'x'");
            wrong(&held_out, "`dataset_test_split` and `test_split_size` both say");
        }
        let recipe = "model_name_or_path: m\ndataset_name: org/rows\neval_strategy: epoch\ntest_split_size: 0.1\n\
                      dataset_test_split: x";
        let settled = Options::parse_recipe(recipe).unwrap().settle().unwrap();
        assert_eq!(settled.recipe.notes(), ["`dataset_test_split`: rows are held out by test_split_size"]);
    }

    #[test]
    fn a_split_to_evaluate_on_is_enough() {
        let of = |more: &str| {
            Options::parse(&format!("model = 'm'\ndataset = 'org/rows'\n{more}")).unwrap().resolve()
        };
        assert_eq!(of("").unwrap().eval_dataset, None);
        let config = of("dataset_test_split = 'test'").unwrap();
        assert_eq!((config.eval_dataset, config.eval_strategy), (Some("org/rows".into()), EvalStrategy::End));
        assert!(of("eval_strategy = 'epoch'").unwrap().eval_dataset.is_some());
    }
}
