//! Caches as Hugging Face's libraries leave them, whole and damaged.

mod common;

use common::{MODEL, Temp, commit, dataset, model};
use duel_hub::{Hub, named};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A file of a snapshot: a link to a blob, or a copy.
fn put(temp: &Temp, repository: &str, digit: char, path: &str, content: &str, copy: bool) {
    let at = format!("{repository}/snapshots/{}/{path}", commit(digit));
    if copy {
        temp.write(&at, content);
        return;
    }
    let blob = format!("{}{digit}", path.replace('/', "-"));
    temp.write(&format!("{repository}/blobs/{blob}"), content);
    let at = temp.path(&at);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    symlink(format!("{}blobs/{blob}", "../".repeat(2 + path.matches('/').count())), at).unwrap();
}

/// A model with branches, a pull request and a commit that has no name; one that is half there; one in parts.
fn cache(name: &str, copy: bool) -> Temp {
    let temp = Temp::new(name);
    for digit in ['1', '2', '3'] {
        MODEL.iter().for_each(|file| put(&temp, "models--org--name", digit, file, &digit.to_string(), copy));
    }
    put(&temp, "models--org--name", '1', "additional_chat_templates/x.jinja", "{}", copy);
    for (reference, digit) in [("main", '1'), ("feature/a", '2'), ("refs/pr/1", '2')] {
        temp.write(&format!("models--org--name/refs/{reference}"), commit(digit));
    }
    put(&temp, "models--org--half", '4', "config.json", "{}", copy);
    temp.write("models--org--half/refs/main", commit('4'));
    temp.write("models--org--half/blobs/0.incomplete", "x");
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    for file in ["config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors"] {
        put(&temp, "models--parts", '5', file, "", copy);
    }
    put(&temp, "models--parts", '5', "model.safetensors.index.json", index, copy);
    temp.write("models--parts/refs/main", commit('5') + "\n");
    temp.write(&format!("models--parts/.no_exist/{}/adapter_config.json", commit('5')), "");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        put(&temp, "models--org--adapter", '6', file, "", copy);
    }
    temp.write("models--org--adapter/refs/main", commit('6'));
    temp
}

#[test]
fn revisions_are_found_in_links_and_copies() {
    for copy in [false, true] {
        let temp = cache(&format!("revisions-{copy}"), copy);
        let hub = Hub::offline(&temp.0);
        for (said, digit) in [
            ("org/name", '1'),
            ("org/name@main", '1'),
            ("org/name@feature/a", '2'),
            ("org/name@refs/pr/1", '2'),
            (&format!("org/name@{}", commit('3')), '3'),
        ] {
            let found = model(&hub, said).unwrap();
            assert_eq!(found.said, Path::new(&format!("org/name@{}", commit(digit))), "{said}");
            assert_eq!(fs::read_to_string(found.at.join("model.safetensors")).unwrap(), digit.to_string());
            assert_eq!(named(&found.at), Some(("org/name".into(), commit(digit))));
        }
        assert!(model(&hub, "parts").is_ok() && model(&hub, "org/adapter").is_ok());
        assert_eq!(named(&temp.0), None);
    }
}

#[test]
fn a_path_wins_over_a_name() {
    let temp = cache("path", false);
    let (hub, folder) = (Hub::offline(&temp.0), temp.path("models--org--name"));
    assert_eq!(hub.model(&folder).unwrap().at, folder);
    let nowhere = temp.path("a/b/c");
    assert_eq!(hub.model(&nowhere).unwrap().at, nowhere, "what is no name is for the caller to miss");
}

/// One clear sentence each, which says what to do.
#[test]
fn what_the_cache_lacks_is_named() {
    let temp = cache("lacks", false);
    let hub = Hub::offline(&temp.0);
    let cure = "HF_HUB_OFFLINE is set, so that nothing is downloaded: unset it, or run `hf download";
    let wrong = |said: &str, parts: &[&str]| {
        let error = model(&hub, said).unwrap_err();
        parts
            .iter()
            .chain([&cure])
            .for_each(|part| assert!(error.contains(part), "{part} is not in: {error}"));
    };
    wrong("org/none", &["org/none: there is no such file or folder, and no model of that name"]);
    wrong("org/name@v9", &["no revision v9", "it has feature/a, main, refs/pr/1, 3333", "--revision v9`"]);
    wrong(&format!("org/name@{}", commit('9')), &["no revision 9999"]);
    wrong("org/half", &["org/half: its snapshot in the cache", "lacks model.safetensors"]);
    fs::remove_file(temp.path("models--org--name/blobs/model.safetensors1")).unwrap();
    wrong(
        "org/name",
        &["model.safetensors: is a link to ../../blobs/model.safetensors1, which is not there"],
    );
    fs::remove_file(temp.path(&format!("models--parts/snapshots/{}/model-2.safetensors", commit('5'))))
        .unwrap();
    wrong("parts", &["lacks model-2.safetensors"]);
    temp.write("models--parts/refs/main", "");
    wrong("parts", &["refs/main: is damaged: it names no commit"]);
}

#[test]
fn a_cache_may_be_read_only() {
    let temp = cache("read-only", false);
    let writable = |yes: bool| {
        for folder in ["", "models--org--name", "models--org--name/refs", "models--org--name/blobs"] {
            let mode = fs::Permissions::from_mode(if yes { 0o755 } else { 0o555 });
            fs::set_permissions(temp.path(folder), mode).unwrap();
        }
    };
    writable(false);
    let found = model(&Hub::offline(&temp.0), "org/name");
    writable(true);
    assert!(found.is_ok(), "{found:?}");
}

#[test]
fn splits_are_found_in_the_cache() {
    let temp = Temp::new("splits");
    let readme = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: \
                  test\n    path: data/test-*\n---\n";
    let train = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"];
    for file in train.iter().map(|name| format!("data/{name}")).chain(["README.md".into()]) {
        put(&temp, "datasets--org--rows", '7', &file, if file == "README.md" { readme } else { "" }, false);
    }
    temp.write("datasets--org--rows/refs/main", commit('7'));
    let hub = Hub::offline(&temp.0);
    assert_eq!(dataset(&hub, "org/rows", "train").unwrap(), train);
    let error = dataset(&hub, "org/rows", "dev").unwrap_err();
    assert!(error.contains("has no split dev; there are train, test"), "{error}");
    let error = dataset(&hub, "org/rows", "test").unwrap_err();
    assert!(
        error.contains("has no file data/test-*, which would be of its split test; HF_HUB_OFFLINE"),
        "{error}"
    );
    assert!(error.contains("`hf download org/rows --repo-type dataset"), "{error}");
    let part = temp.path(&format!("datasets--org--rows/snapshots/{}/data/{}", commit('7'), train[0]));
    fs::remove_file(part).unwrap();
    let error = dataset(&hub, "org/rows", "train").unwrap_err();
    assert!(error.contains("lacks part 0 of the 2 of data/train"), "{error}");
}

#[test]
fn folders_follow_the_same_rules() {
    let temp = Temp::new("folders");
    temp.write("set/train/a.jsonl", "");
    temp.write("set/dev.jsonl", "");
    let (hub, set) = (Hub::offline(&temp.0), temp.path("set").display().to_string());
    assert_eq!(dataset(&hub, &set, "train").unwrap(), ["a.jsonl"]);
    let error = dataset(&hub, &set, "dev").unwrap_err();
    assert_eq!(error, format!("{set}: has no split dev; there are train"));
    // Links that lead back have no end.
    symlink("..", temp.path("set/train/up")).unwrap();
    symlink(".", temp.path("set/train/here")).unwrap();
    symlink("a.jsonl", temp.path("set/train/b.jsonl")).unwrap();
    assert_eq!(dataset(&hub, &set, "train").unwrap(), ["a.jsonl", "b.jsonl"]);
    let file = temp.path("set/dev.jsonl").display().to_string();
    assert_eq!(dataset(&hub, &file, "whatever").unwrap(), ["dev.jsonl"]);
}

/// A tree that a script writes as Hugging Face's library does; it is not in the project.
#[test]
fn a_cache_of_the_reference_script_is_read() {
    let script = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/data/golden2/files/make_hub_cache.py"
    ));
    for copy in [false, true] {
        let temp = Temp::new(&format!("script-{copy}"));
        let made = Command::new("python3").arg(script).arg(&temp.0).args(copy.then_some("--copy")).output();
        let Some(made) = made.ok().filter(|made| made.status.success() && script.exists()) else {
            eprintln!("SKIPPED: there is no python3, or no {}", script.display());
            return;
        };
        let said: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        let hub = Hub::offline(&temp.0);
        for name in ["demo-org/stories260k", "demo-org/stories260k-sharded"] {
            let found = model(&hub, name).unwrap();
            assert_eq!(found.at.canonicalize().unwrap(), Path::new(said[name].as_str().unwrap()));
        }
        assert_ne!(
            model(&hub, "demo-org/stories260k@v0").unwrap().at,
            model(&hub, "demo-org/stories260k").unwrap().at
        );
        assert!(model(&hub, "demo-org/half-downloaded").unwrap_err().contains("lacks model.safetensors"));
        assert_eq!(dataset(&hub, "demo-org/polite-pairs", "train").unwrap().len(), 2);
        assert_eq!(dataset(&hub, "demo-org/polite-pairs", "test").unwrap().len(), 1);
    }
}
