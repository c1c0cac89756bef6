//! Model folders as they are found, read as transformers reads them: names, ties, tensors without a place, keys with
//! two names, and what is saved again.

use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_model::{
    Config, EmbedScale, Family, Folder, Keep, LoraSettings, Model, Modules, Rope, RopeScaling, Weights,
};
use duel_tests::{
    Batch, Case, FAMILIES, TIED_UNSAID, TempDir, TensorFile, activations, adapted, config, host, merge, tiny,
};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: &str = "adapter_model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const HEAD: &str = "lm_head.weight";
const TIED: [Family; 3] = [Family::Qwen2, Family::Qwen3, Family::Gpt2];

fn cpu() -> Cpu<f32> {
    Cpu::new(1)
}

/// A folder with a right model.
fn folder(family: Family) -> TempDir {
    let dir = TempDir::new().unwrap();
    let case = Case::new(tiny(family), 1);
    duel_model::save(&cpu(), dir.path(), &case.config, &case.upload(&cpu())).unwrap();
    dir
}

fn edit(dir: &TempDir, change: impl FnOnce(&mut TensorFile)) {
    let path = dir.path().join(WEIGHTS);
    let mut file = TensorFile::read(&path);
    change(&mut file);
    fs::write(&path, file.bytes()).unwrap();
}

fn configure(dir: &TempDir, more: Value) {
    let path = dir.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    merge(&mut json, more);
    fs::write(&path, json.to_string()).unwrap();
}

/// Deals the weights to two files; returns the index that was written.
fn shard(dir: &TempDir) -> Value {
    let path = dir.path().join(WEIGHTS);
    let whole = TensorFile::read(&path);
    fs::remove_file(path).unwrap();
    let mut weight_map = Map::new();
    for part in 0..2 {
        let file = format!("model-{:05}-of-00002.safetensors", part + 1);
        let names: Vec<String> = whole.names().into_iter().skip(part).step_by(2).collect();
        weight_map.extend(names.iter().map(|n| (n.clone(), Value::from(file.as_str()))));
        fs::write(dir.path().join(file), whole.select(&names, "F32", <[u8]>::to_vec).bytes()).unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
    index
}

fn values(folder: &Folder) -> Vec<Vec<f64>> {
    let b = cpu();
    duel_model::load(&b, folder).unwrap().iter().into_iter().map(|w| host::<_, f32>(&b, w)).collect()
}

fn open(dir: &TempDir) -> Folder {
    Folder::open(dir.path()).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_refused(dir: &TempDir, parts: &[&str]) {
    let Err(e) = Folder::open(dir.path()) else { panic!("opened, without {parts:?}") };
    let message = e.to_string();
    assert!(message.starts_with(&dir.path().display().to_string()) && !message.contains('\n'), "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is not in: {message}"));
}

/// Beginning of the names of all tensors but the head, and the embedding's.
fn root(family: Family) -> (String, String) {
    let embed = Model::manifest(&tiny(family)).embed.pieces[0].name.clone();
    let (root, _) = embed.split_once('.').expect("a name in two parts");
    (format!("{root}."), embed)
}

/// Name of the head, where it is a matrix of its own.
fn head(family: Family) -> String {
    let untied = Config { tied: false, ..tiny(family) };
    Model::manifest(&untied).head.expect("an untied model has a head").pieces[0].name.clone()
}

/// Name of the weights of the second layer's first map of the feed-forward.
fn up(family: Family) -> String {
    Model::manifest(&tiny(family)).layers[1].up.weight.pieces[0].name.clone()
}

// ---- names and files ------------------------------------------------------------------------------------------------

#[test]
fn names_may_lack_the_models_own() {
    for family in FAMILIES {
        let want = values(&open(&folder(family)));
        let (root, _) = root(family);
        for every in [1, 2, 3] {
            let dir = folder(family);
            edit(&dir, |file| {
                for name in file.names().iter().step_by(every) {
                    file.rename(name, name.strip_prefix(&root).unwrap_or(name));
                }
            });
            assert_eq!(values(&open(&dir)), want, "{family:?}, every {every}");
            shard(&dir);
            let sharded = open(&dir);
            assert_eq!(values(&sharded), want, "{family:?}, every {every}, sharded");
            assert!(sharded.notes().is_empty(), "{:?}", sharded.notes());
        }
    }
}

#[test]
fn names_may_stand_behind_a_wrappers() {
    for family in FAMILIES {
        let want = values(&open(&folder(family)));
        let (_, embed) = root(family);
        for wrapper in ["_orig_mod.", "module.", "module._orig_mod."] {
            let dir = folder(family);
            let wrap = |file: &mut TensorFile| {
                file.names().iter().for_each(|name| file.rename(name, &format!("{wrapper}{name}")));
            };
            edit(&dir, wrap);
            shard(&dir);
            let opened = open(&dir);
            assert_eq!(values(&opened), want, "{family:?}, {wrapper}");
            assert!(opened.notes().is_empty(), "{:?}", opened.notes());
            let dir = folder(family);
            edit(&dir, |file| file.rename(&embed, &format!("{wrapper}{embed}")));
            assert_refused(&dir, &[&embed, "missing"]);
        }
    }
}

#[test]
fn a_model_inside_another_is_found_and_refused() {
    for family in FAMILIES {
        let (root, embed) = root(family);
        for (wrapper, short, what) in [
            ("base_model.model.", false, "merge_and_unload"),
            ("language_model.", false, "take its text model"),
            ("model.language_model.", true, "take its text model"),
        ] {
            let dir = folder(family);
            let inside = |name: &str| {
                let name = if short { name.strip_prefix(&root).unwrap_or(name) } else { name };
                format!("{wrapper}{name}")
            };
            edit(&dir, |file| file.names().iter().for_each(|name| file.rename(name, &inside(name))));
            let found = format!("`{}` is there", inside(&embed));
            assert_refused(&dir, &[WEIGHTS, &format!("`{embed}` is missing"), &found, what]);
        }
    }
}

/// Under either name that transformers has for its tensors.
#[test]
fn a_text_model_inside_one_that_sees_pictures_is_read_alone() {
    let alone = folder(Family::Gemma3);
    let (want, config) = (values(&open(&alone)), open(&alone).config().clone());
    let mut part = config.json.clone();
    // Said of the whole alone.
    for key in ["model_type", "dtype"] {
        part.remove(key);
    }
    let whole =
        json!({"model_type": "gemma3", "dtype": "float32", "eos_token_id": [1, 106], "text_config": part});
    for (inside, root) in [("language_model.", "model."), ("model.language_model.", "")] {
        let dir = folder(Family::Gemma3);
        fs::write(dir.path().join("config.json"), whole.to_string()).unwrap();
        edit(&dir, |file| {
            for name in file.names() {
                let own = name.strip_prefix("model.").unwrap();
                file.rename(&name, &format!("{inside}{root}{own}"));
            }
            file.add("vision_tower.encoder.layers.0.mlp.fc1.bias", &[3]);
        });
        let folder = open(&dir);
        assert_eq!(values(&folder), want);
        let [of_text, left] = folder.notes() else { panic!("{:?}", folder.notes()) };
        assert!(of_text.contains("the text model of a gemma3") && left.contains("vision_tower"), "{left}");
        assert_saved(folder.config());
        let json = &folder.config().json;
        assert_eq!(json["architectures"], json!(["Gemma3ForCausalLM"]));
        assert_eq!((&json["model_type"], &json["eos_token_id"]), (&json!("gemma3_text"), &json!([1, 106])));
        assert_adapters_are_the_wholes(&folder, dir.path());
        for (more, part) in [
            (json!({"architectures": ["Gemma3ForSequenceClassification"]}), "language models alone"),
            (json!({"quantization_config": {"quant_method": "awq"}}), "awq"),
            (json!({"text_config": null}), "lacks `text_config`"),
        ] {
            configure(&dir, more);
            assert_refused(&dir, &["config.json", part]);
            fs::write(dir.path().join("config.json"), whole.to_string()).unwrap();
        }
    }
    // What the part leaves out is what transformers takes.
    let bare = json!({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34}});
    let bare = Config::from_json(bare.as_object().unwrap().clone()).unwrap();
    assert_eq!((bare.width, bare.layers, bare.heads.kv_heads, bare.vocab), (2304, 34, 4, 262_208));
}

/// PEFT loads the whole model, whose modules have `language_model` in their names.
fn assert_adapters_are_the_wholes(folder: &Folder, base: &Path) {
    let saved = vec!["norm".into()];
    let config = folder.with_lora(LoraSettings { saved, ..every_map() }).unwrap();
    let (b, dir) = (cpu(), TempDir::new().unwrap());
    let weights = duel_model::load_as(&b, folder, &config).unwrap();
    duel_model::save_adapter(&b, dir.path(), &config, &weights, base).unwrap();
    let names = TensorFile::read(&dir.path().join(ADAPTER)).names();
    let of_whole = |name: &String| name.starts_with("base_model.model.model.language_model.");
    assert!(names.len() > 1 && names.iter().all(of_whole), "{names:?}");
    let again = open(&dir);
    let again = duel_model::load_as(&b, &again, again.adapted().unwrap()).unwrap();
    for (got, want) in again.iter().into_iter().zip(weights.iter()) {
        assert_eq!(got, want);
    }
}

#[test]
fn a_full_name_wins() {
    for family in FAMILIES {
        let dir = folder(family);
        let want = values(&open(&dir));
        let (root, embed) = root(family);
        let short = embed.strip_prefix(&root).unwrap();
        edit(&dir, |file| file.add(short, &[19, 12]));
        let twice = open(&dir);
        assert_eq!(values(&twice), want, "{family:?}");
        assert!(twice.notes()[0].contains(short), "{:?}", twice.notes());
    }
}

#[test]
fn one_file_goes_before_an_index() {
    let dir = folder(Family::Qwen3);
    let want = values(&open(&dir));
    let whole = fs::read(dir.path().join(WEIGHTS)).unwrap();
    edit(&dir, |file| file.data.fill(0));
    shard(&dir);
    assert_ne!(values(&open(&dir)), want, "zeros from the shards");
    fs::write(dir.path().join(WEIGHTS), whole).unwrap();
    assert_eq!(values(&open(&dir)), want);
}

/// An index says which files there are; the files say what is in them.
#[test]
fn an_index_may_be_older_than_its_files() {
    let dir = folder(Family::Llama);
    let want = values(&open(&dir));
    let mut index = shard(&dir);
    let map = index["weight_map"].as_object_mut().unwrap();
    let other = map.values().next_back().unwrap().clone();
    map.remove("model.norm.weight").unwrap();
    map.insert("model.embed_tokens.weight".into(), other.clone());
    map.insert("model.nothing.weight".into(), other);
    fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
    assert_eq!(values(&open(&dir)), want);
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert_refused(&dir, &["model-00002-of-00002.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_named() {
    for file in [WEIGHTS, INDEX, "config.json"] {
        let dir = folder(Family::Llama);
        drop(fs::remove_file(dir.path().join(file)));
        if file == INDEX {
            fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
        }
        std::os::unix::fs::symlink("../blobs/lost", dir.path().join(file)).unwrap();
        assert_refused(&dir, &[&format!("{file}: ")]);
    }
}

// ---- tied heads -----------------------------------------------------------------------------------------------------

#[test]
fn a_tied_matrix_may_have_either_name() {
    for family in TIED {
        let dir = folder(family);
        let want = values(&open(&dir));
        edit(&dir, |file| file.rename(&root(family).1, HEAD));
        for sharded in [false, true] {
            if sharded {
                shard(&dir);
            }
            let folder = open(&dir);
            assert_eq!(values(&folder), want, "{family:?}");
            assert!(folder.config().tied && folder.notes().is_empty(), "{family:?}");
        }
        let neither = self::folder(family);
        edit(&neither, |file| file.rename(&root(family).1, "other.weight"));
        assert_refused(&neither, &[&root(family).1, "missing"]);
    }
}

#[test]
fn a_tied_head_that_is_stored_twice_is_tied_where_it_is_equal() {
    for family in TIED {
        for wide in [false, true] {
            let dir = folder(family);
            let want = values(&open(&dir));
            edit(&dir, |file| {
                let bytes = file.tensor(&root(family).1).to_vec();
                file.add(HEAD, &[19, 12]);
                let range = file.range(HEAD);
                file.data[range.clone()].copy_from_slice(&bytes);
                if wide {
                    // The same numbers in other bytes.
                    let singles = bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()));
                    let doubles: Vec<u8> = singles.flat_map(|x| f64::from(x).to_le_bytes()).collect();
                    file.data.splice(range.clone(), doubles);
                    file.header[HEAD]["dtype"] = "F64".into();
                    file.header[HEAD]["data_offsets"] = json!([range.start, file.data.len()]);
                }
            });
            let folder = open(&dir);
            assert_eq!(values(&folder), want, "{family:?}");
            assert!(folder.config().tied && folder.notes().is_empty(), "{family:?}");
        }
    }
}

#[test]
fn a_tied_head_that_differs_is_a_matrix_of_its_own() {
    for family in TIED {
        let dir = folder(family);
        let want = values(&open(&dir));
        edit(&dir, |file| file.add(HEAD, &[19, 12]));
        let opened = open(&dir);
        assert!(!opened.config().tied, "{family:?}");
        assert!(opened.notes().len() == 1 && opened.notes()[0].contains(HEAD), "{:?}", opened.notes());
        let got = values(&opened);
        assert_eq!(got[..got.len() - 1], want, "{family:?}");
        assert_eq!(got.last().unwrap(), &[0.0; 19 * 12]);

        let (b, again) = (cpu(), TempDir::new().unwrap());
        let weights = duel_model::load(&b, &opened).unwrap();
        duel_model::save(&b, again.path(), opened.config(), &weights).unwrap();
        let again = open(&again);
        assert_eq!(again.config().json["tie_word_embeddings"], false);
        assert!(again.notes().is_empty() && values(&again) == got, "{family:?}");
    }
}

#[test]
fn an_untied_model_needs_a_head() {
    for family in FAMILIES {
        let dir = folder(family);
        configure(&dir, json!({"tie_word_embeddings": false}));
        edit(&dir, |file| {
            if file.header.contains_key(&head(family)) {
                file.rename(&head(family), "score.weight");
            }
        });
        assert_refused(&dir, &[&head(family), "missing", "`tie_word_embeddings` is false"]);
        configure(&dir, json!({"tie_word_embeddings": null}));
        if TIED_UNSAID.contains(&family) {
            assert!(open(&dir).config().tied, "what is not said is true for this family");
        } else {
            assert_refused(&dir, &[&head(family), "missing", "does not set `tie_word_embeddings`"]);
        }
    }
}

// ---- tensors without a place ----------------------------------------------------------------------------------------

/// Names of a second-layer tensor, of a new one in a layer, of a bias that no config asked for, and of a buffer.
fn strangers(family: Family) -> [String; 4] {
    let names = match family {
        Family::Llama => [
            "layers.2.mlp.up_proj.weight",
            "layers.1.self_attn.q_norm.weight",
            "layers.0.self_attn.q_proj.bias",
            "layers.0.self_attn.rotary_emb.inv_freq",
        ],
        Family::Qwen2 => [
            "layers.11.input_layernorm.weight",
            "layers.1.self_attn.q_norm.weight",
            "layers.0.self_attn.o_proj.bias",
            "rotary_emb.inv_freq",
        ],
        Family::Qwen3 => [
            "layers.2.self_attn.k_norm.weight",
            "layers.0.mlp.experts.0.weight",
            "layers.1.mlp.down_proj.bias",
            "embeddings.position_ids",
        ],
        Family::Gpt2 => ["h.2.ln_1.weight", "h.1.attn.q_norm.weight", "lm_head.bias", "h.0.attn.masked_bias"],
        _ => {
            let up = up(family).replacen(&root(family).0, "", 1);
            let (block, _) = up.split_once(".1.").expect("a name in a layer");
            let all = Model::manifest(&tiny(family));
            let maps = [&all.layers[1].out, &all.layers[1].up];
            let plain = maps.iter().find(|map| map.bias.is_none()).map(|map| &map.weight.pieces[0].name);
            let weight = plain.map_or(head(family), |name| name.replacen(&root(family).0, "", 1));
            return [
                up.replacen(".1.", ".2.", 1),
                format!("{block}.1.other.weight"),
                weight.replace(".weight", ".bias"),
                format!("{block}.0.attention.rotary_emb.inv_freq"),
            ];
        }
    };
    names.map(String::from)
}

#[test]
fn tensors_that_would_change_the_model_are_refused() {
    for family in FAMILIES {
        let [layer, inside, bias, buffer] = &strangers(family);
        let of_head = head(family).replace(".weight", ".bias");
        let head_bias = tiny(family).head_bias;
        for prefix in ["", &root(family).0] {
            let with = |name: &str| {
                let dir = folder(family);
                let name = if name == of_head { name.into() } else { format!("{prefix}{name}") };
                edit(&dir, |file| file.add(&name, &[12]));
                (dir, name)
            };
            let (dir, name) = with(layer);
            let weights = if layer.contains(".11.") { "the weights 12" } else { "the weights 3" };
            assert_refused(&dir, &[WEIGHTS, &name, "config.json has 2 layers", weights]);
            let (dir, name) = with(inside);
            assert_refused(&dir, &[WEIGHTS, &name, "part of a layer"]);
            // There is none to add where the head has one, and all maps.
            if !(head_bias && *bias == of_head) {
                let (dir, name) = with(bias);
                assert_refused(&dir, &[WEIGHTS, &name, "is a bias"]);
            }
            let (dir, _) = with(buffer);
            assert!(open(&dir).notes().is_empty(), "{buffer}");
        }
        if head_bias {
            continue;
        }
        let dir = folder(family);
        edit(&dir, |file| file.add(&of_head, &[19]));
        assert_refused(&dir, &[&of_head, "is a bias"]);
        edit(&dir, |file| file.add(&format!("{}{bias}", root(family).0), &[12]));
        let one = format!("{of_head}` is");
        assert_refused(&dir, &[if *bias == of_head { &one } else { "(and 1 more)" }]);
    }
}

#[test]
fn tensors_of_another_task_are_noted() {
    for family in FAMILIES {
        let dir = folder(family);
        let want = values(&open(&dir));
        let extras =
            ["score.weight", "v_head.summary.bias", "v_head.summary.weight", "vision_tower.layers.0.x.bias"];
        edit(&dir, |file| extras.iter().for_each(|name| file.add(name, &[2])));
        let folder = open(&dir);
        assert_eq!(values(&folder), want);
        let [note] = folder.notes() else { panic!("{:?}", folder.notes()) };
        for part in
            ["4 of the tensors are not part", "score.weight, v_head.summary.bias, v_head.summary.weight, ..."]
        {
            assert!(note.contains(part), "{note}");
        }
        let dir = self::folder(family);
        edit(&dir, |file| file.add("score.weight", &[2]));
        assert!(
            open(&dir).notes()[0].ends_with("1 tensor is not part of the model and left out: score.weight")
        );
    }
}

#[test]
fn biases_get_the_advice_that_helps() {
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|map| format!("self_attn.{map}.bias"));
    let mlp = ["gate_proj", "up_proj", "down_proj"].map(|map| format!("mlp.{map}.bias"));
    let norm = ["post_attention_layernorm.bias".to_string()];
    let advice = |family, biases: &[&[String]]| {
        let dir = folder(family);
        edit(&dir, |file| {
            for name in biases.concat() {
                file.add(&format!("model.layers.0.{name}"), &[4]);
            }
        });
        Folder::open(dir.path()).err().expect("refused").to_string()
    };
    let (one, both) = ("set `attention_bias` to true", "set `attention_bias` and `mlp_bias` to true");
    let none = "duel has no place for it";
    for (family, biases, part) in [
        (Family::Llama, &[&attention[..]][..], one),
        (Family::Llama, &[&mlp], "set `mlp_bias` to true"),
        (Family::Llama, &[&attention, &mlp], both),
        (Family::Llama, &[&attention[..3]], none), // as Qwen2 has them
        (Family::Llama, &[&attention, &norm], none),
        (Family::Qwen3, &[&attention], one),
        (Family::Qwen3, &[&attention, &mlp], none),
        (Family::Qwen2, &[&attention[3..]], none),
        (Family::Qwen2, &[&mlp], none),
    ] {
        let message = advice(family, biases);
        assert!(message.contains(part), "{family:?}, {biases:?}: {message}");
    }
}

#[test]
fn one_layer_is_one_layer() {
    let dir = folder(Family::Llama);
    configure(&dir, json!({"num_hidden_layers": 1}));
    assert_refused(&dir, &["config.json has 1 layer, the weights 2;"]);
}

// ---- keys of the config ---------------------------------------------------------------------------------------------

fn with(family: Family, more: Value) -> Result<Config, String> {
    let mut json = Value::Object(tiny(family).json);
    json.as_object_mut().unwrap().remove("rope_parameters");
    merge(&mut json, more);
    Config::from_json(json.as_object().unwrap().clone())
}

/// Every expectation is what transformers 5.23 makes of the same keys.
#[test]
fn rotary_positions_by_either_name() {
    let llama3 = |more: Value| {
        let mut dict =
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4});
        merge(&mut dict, more);
        dict
    };
    let stretched =
        |original| RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original };
    let linear = RopeScaling::Linear { factor: 2.0 };
    let plain = RopeScaling::Plain;
    let old = json!({"type": "linear", "factor": 2.0});
    let original = "original_max_position_embeddings";
    let cases = [
        (json!({}), 10_000.0, plain.clone()),
        (json!({"rope_theta": 5}), 5.0, plain.clone()),
        (json!({"rope_theta": null, "rope_scaling": null, "rope_parameters": null}), 10_000.0, plain.clone()),
        (json!({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}), 7.0, plain.clone()),
        (
            json!({"rope_theta": 5.0, "rope_parameters": {"rope_type": "linear", "factor": 2}}),
            5.0,
            linear.clone(),
        ),
        (json!({"rope_scaling": old, "rope_parameters": {"rope_theta": 7.0}}), 10_000.0, linear.clone()),
        (json!({"rope_scaling": {}, "rope_parameters": {"rope_theta": 7.0}}), 7.0, plain.clone()),
        (
            json!({"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}}),
            10_000.0,
            linear.clone(),
        ),
        (
            json!({"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}}),
            10_000.0,
            plain.clone(),
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}}),
            10_000.0,
            linear.clone(),
        ),
        (json!({"rope_scaling": llama3(json!({}))}), 10_000.0, stretched(64.0)),
        (json!({"rope_scaling": llama3(json!({original: 16}))}), 10_000.0, stretched(16.0)),
        (json!({"rope_scaling": llama3(json!({original: 16})), original: 32}), 10_000.0, stretched(32.0)),
        (json!({"partial_rotary_factor": 1.0}), 10_000.0, plain.clone()),
    ];
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        for (keys, theta, scaling) in &cases {
            let config = with(family, keys.clone()).unwrap_or_else(|e| panic!("{keys}: {e}"));
            let dims = config.heads.head_dim;
            let rope = Rope { theta: *theta, dims, pairs: false, scaling: scaling.clone() };
            assert_eq!(config.rope, Some(rope), "{family:?}: {keys}");
            assert_saved(&config);
        }
        let mistakes = [
            (json!({"rope_scaling": {"type": "ntk"}}), "`rope_scaling.type` is `ntk`"),
            (json!({"rope_scaling": {"rope_type": "mrope"}}), "`rope_scaling.rope_type` is `mrope`"),
            (json!({"rope_parameters": {"type": "su"}}), "lacks `rope_parameters.short_factor`"),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}),
                "`rope_parameters.full_attention`",
            ),
            (json!({"rope_parameters": [1]}), "`rope_parameters` is [1]; it must be an object"),
            (json!({"rope_scaling": {"type": "linear"}}), "lacks `rope_scaling.factor`"),
            (json!({"rope_scaling": {"type": "linear", "factor": "2"}}), "`rope_scaling.factor` is \"2\""),
            (json!({"rope_scaling": {"type": "linear", "factor": 0}}), "`rope_scaling.factor` is 0"),
            (json!({"rope_theta": "10000"}), "`rope_theta` is \"10000\"; it must be a number"),
            (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` is 0.5"),
            (json!({"rope_parameters": {"partial_rotary_factor": 0.25}}), "`partial_rotary_factor` is 0.25"),
        ];
        for (keys, part) in mistakes {
            let e = with(family, keys.clone()).expect_err(&keys.to_string());
            assert!(e.contains(part), "`{part}`: {e}");
        }
    }
}

/// What is saved describes the same model to a reader of either generation.
fn assert_saved(config: &Config) {
    let dir = TempDir::new().unwrap();
    let case = Case::new(config.clone(), 1);
    duel_model::save(&cpu(), dir.path(), config, &case.upload(&cpu())).unwrap();
    let saved = open(&dir);
    assert!(saved.config().is_like(config), "{:?}", saved.config());
    let mut old = saved.config().json.clone();
    old.remove("rope_parameters");
    assert!(Config::from_json(old.clone()).unwrap().is_like(config), "{old:?}");
    let Some(rope) = &config.rope else { return };
    assert_eq!(old["rope_theta"], rope.theta, "beside it, where transformers 4 looks");
    let mut new = saved.config().json.clone();
    if new.contains_key("rope_parameters") {
        new.remove("rope_scaling");
        new.remove("rope_theta");
        assert!(Config::from_json(new.clone()).unwrap().is_like(config), "{new:?}");
    }
}

#[test]
fn both_names_of_the_type_are_right_when_saved() {
    for (keys, want) in [
        (json!({}), json!({"dtype": "float32"})),
        (json!({"torch_dtype": "float16"}), json!({"torch_dtype": "float32"})),
        (json!({"dtype": "bfloat16"}), json!({"dtype": "float32"})),
        (
            json!({"dtype": "bfloat16", "torch_dtype": "float16"}),
            json!({"dtype": "float32", "torch_dtype": "float32"}),
        ),
    ] {
        for family in FAMILIES {
            let config = with(family, keys.clone()).unwrap();
            let (dir, case) = (TempDir::new().unwrap(), Case::new(config.clone(), 1));
            duel_model::save(&cpu(), dir.path(), &config, &case.upload(&cpu())).unwrap();
            let saved = open(&dir);
            let json = &saved.config().json;
            for key in ["dtype", "torch_dtype"] {
                assert_eq!(json.get(key), want.get(key), "{family:?}: {keys}");
            }
            assert_eq!(json["tie_word_embeddings"], config.tied);
        }
    }
}

#[test]
fn gpt2_takes_the_common_names() {
    let sizes = |c: &Config| (c.width, c.layers, c.heads.heads, c.max_positions);
    let common = json!({
        "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "max_position_embeddings": 32
    });
    assert_eq!(sizes(&with(Family::Gpt2, common.clone()).unwrap()), (24, 3, 6, 32), "they win");
    let mut alone = common;
    merge(&mut alone, json!({"model_type": "gpt2", "vocab_size": 19}));
    assert_eq!(sizes(&config(alone)), (24, 3, 6, 32));
    let nulls = json!({
        "hidden_size": null, "num_hidden_layers": null, "num_attention_heads": null, "max_position_embeddings": null,
        "n_inner": null, "activation_function": null, "layer_norm_epsilon": null
    });
    let plain = tiny(Family::Gpt2);
    assert!(with(Family::Gpt2, nulls).unwrap().is_like(&plain), "null is as good as no key");
}

#[test]
fn values_of_the_wrong_kind_are_named() {
    for (family, keys) in [
        (Family::Llama, ["hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim"]),
        (
            Family::Qwen2,
            ["vocab_size", "intermediate_size", "num_attention_heads", "max_position_embeddings"],
        ),
        (Family::Gpt2, ["n_embd", "n_layer", "n_head", "n_inner"]),
    ] {
        for key in keys {
            for wrong in [json!(4.0), json!("4"), json!([4]), json!(true), json!(-4)] {
                let e = with(family, json!({key: wrong})).expect_err(key);
                assert_eq!(e, format!("`{key}` is {wrong}; it must be a whole number"));
            }
        }
    }
    for (key, wrong) in [
        ("rms_norm_eps", json!("1e-5")),
        ("tie_word_embeddings", json!("true")),
        ("attention_bias", json!(1)),
        ("hidden_act", json!(3)),
        ("model_type", json!(3)),
        ("initializer_range", json!([])),
    ] {
        let e = with(Family::Llama, json!({key: wrong})).expect_err(key);
        assert!(e.starts_with(&format!("`{key}` is {wrong}; it must be ")), "{e}");
    }
    let e = with(Family::Llama, json!({"hidden_size": null})).unwrap_err();
    assert_eq!(e, "lacks `hidden_size`");
}

#[test]
fn what_a_config_leaves_out() {
    let heads = |family, more| with(family, more).unwrap().heads;
    let wide =
        |key: &str| json!({key: null, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2});
    assert_eq!(heads(Family::Llama, wide("head_dim")).head_dim, 16);
    assert_eq!(heads(Family::Qwen2, wide("head_dim")).head_dim, 16);
    assert_eq!(heads(Family::Qwen3, wide("head_dim")).head_dim, 128, "a default of its own");
    assert_eq!(heads(Family::Qwen2, json!({"num_key_value_heads": null})).kv_heads, 3);
    // Only Llama's feed-forward can have biases, and Qwen2's attention always has three.
    let biased = json!({"attention_bias": true, "mlp_bias": true});
    let biases = |family| {
        let c = with(family, biased.clone()).unwrap();
        (c.qkv_bias, c.out_bias, c.mlp_bias)
    };
    assert_eq!(biases(Family::Llama), (true, true, true));
    assert_eq!(biases(Family::Qwen2), (true, false, false));
    assert_eq!(biases(Family::Qwen3), (true, true, false));
}

/// The window of each layer, of a tiny model with more keys.
fn windows(family: Family, keys: Value) -> Vec<Option<usize>> {
    let config = with(family, keys.clone()).unwrap_or_else(|e| panic!("{keys}: {e}"));
    assert_saved(&config);
    (0..config.layers).map(|l| config.kind(l).window).collect()
}

#[test]
fn windows_are_those_of_transformers() {
    let [full, mixed] =
        [["full_attention"; 2], ["full_attention", "sliding_attention"]].map(|types| json!(types));
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        for off in [
            json!({"use_sliding_window": false, "sliding_window": 8, "max_window_layers": 0}),
            json!({"use_sliding_window": true, "max_window_layers": 2}),
            json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0}),
            json!({"use_sliding_window": true, "max_window_layers": 0, "layer_types": full}),
            json!({"layer_types": full}),
        ] {
            assert_eq!(windows(family, off), [None; 2]);
        }
        let refused = [
            (json!({"layer_types": mixed}), "sliding_attention"),
            (json!({"layer_types": ["full_attention"]}), "1 entry for 2 layers"),
            (json!({"layer_types": ["full_attention", "chunked_attention"]}), "chunked_attention"),
        ];
        let on = [
            (json!({"use_sliding_window": true, "max_window_layers": 1}), [None, Some(4096)]),
            (json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 0}), [Some(5); 2]),
            (json!({"use_sliding_window": true, "sliding_window": 5, "layer_types": mixed}), [None, Some(5)]),
        ];
        for (keys, part) in refused {
            let e = with(family, keys.clone()).expect_err(&keys.to_string());
            assert!(e.contains(part), "{e}");
        }
        for (keys, want) in on {
            match family {
                Family::Llama => assert!(with(family, keys).unwrap_err().contains("no windows")),
                _ => assert_eq!(windows(family, keys), want),
            }
        }
    }
    // Of the tiny model's two layers the second has no RoPE, and of those are the windows of SmolLM3.
    let on = |more: Value| {
        let mut keys = json!({"use_sliding_window": true, "sliding_window": 5});
        merge(&mut keys, more);
        windows(Family::SmolLm3, keys)
    };
    assert_eq!(on(json!({})), [None, Some(5)]);
    assert_eq!(
        on(json!({"no_rope_layers": [0, 1, 0]})),
        [Some(5), None],
        "what is beyond the layers is not read"
    );
    assert_eq!(on(json!({"layer_types": ["sliding_attention", "full_attention"]})), [Some(5), None]);
    assert_eq!(on(json!({"sliding_window": null})), [None; 2]);
    assert_eq!(on(json!({"use_sliding_window": false})), [None; 2]);
    assert_eq!(windows(Family::Mistral, json!({})), [Some(3); 2]);
    assert_eq!(windows(Family::Mistral, json!({"sliding_window": null})), [None; 2]);
    assert_eq!(windows(Family::Gemma2, json!({})), [Some(4), None]);
    assert_eq!(windows(Family::Gemma2, json!({"layer_types": mixed})), [None, Some(4)]);
    assert_eq!(windows(Family::Gemma3, json!({"layer_types": null})), [Some(4); 2]);
    assert_eq!(
        windows(Family::Gemma3, json!({"layer_types": null, "sliding_window_pattern": 2})),
        [Some(4), None]
    );
    for (family, keys, part) in [
        (Family::Mistral, json!({"sliding_window": 0}), "`sliding_window` is 0"),
        (Family::Mistral, json!({"layer_types": mixed}), "all alike"),
        (Family::Gemma2, json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        (Family::Gemma2, json!({"final_logit_softcapping": 1e300}), "the cap of logits is 1e300"),
        (Family::Gemma2, json!({"query_pre_attn_scalar": 1e-300}), "the scale of scores is"),
        (Family::Gemma2, json!({"num_hidden_layers": 1u64 << 60}), "the number of layers is"),
        (
            Family::SmolLm3,
            json!({"num_hidden_layers": 1u64 << 60, "no_rope_layers": null}),
            "the number of layers is",
        ),
        (Family::Gemma3, json!({"attn_logit_softcapping": 20.0}), "attn_logit_softcapping"),
        (Family::Gemma3, json!({"rope_parameters": {"rope_theta": 7.0}}), "full_attention"),
    ] {
        let e = with(family, keys.clone()).expect_err(&keys.to_string());
        assert!(e.contains(part), "{e}");
    }
    // What the file leaves out.
    let bare = |family| {
        let mut json = tiny(family).json;
        for key in
            ["sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"]
        {
            json.remove(key);
        }
        Config::from_json(json).unwrap()
    };
    assert_eq!(bare(Family::Mistral).kinds[0].window, Some(4096));
    let gemma2 = bare(Family::Gemma2);
    assert_eq!(
        (gemma2.score_scale, gemma2.score_cap, gemma2.logit_cap),
        (Some(1.0 / 16.0), Some(50.0), Some(30.0))
    );
    let none = with(Family::Gemma2, json!({"attn_logit_softcapping": null, "final_logit_softcapping": null}))
        .unwrap();
    assert_eq!((none.score_cap, none.logit_cap), (None, None));
    let gemma3 = bare(Family::Gemma3);
    assert_eq!((gemma3.score_cap, gemma3.logit_cap, gemma3.kinds[0].window), (None, None, Some(4096)));
}

/// The factors of Granite's branches, and of what is under the root of its norms.
#[test]
fn factors_of_branches_are_in_the_stream() {
    let granite =
        with(Family::Granite, json!({"embedding_multiplier": 12.0, "residual_multiplier": 0.25})).unwrap();
    assert_eq!((granite.embed_scale, granite.eps), (Some(EmbedScale::Exact(48.0)), 0.16));
    let bare = Config::from_json(tiny(Family::Llama).json).unwrap();
    let mut json = bare.json.clone();
    json.insert("model_type".into(), "granite".into());
    let plain = Config::from_json(json).unwrap();
    assert_eq!((plain.hidden_scale, plain.score_scale, plain.eps), (Some(1.0), Some(1.0), bare.eps));
    for (key, value) in
        [("residual_multiplier", 1e-300), ("logits_scaling", 0.0), ("attention_multiplier", -1.0)]
    {
        assert!(with(Family::Granite, json!({key: value})).unwrap_err().contains(key));
    }
    // A scalar head reads the hidden states as they are.
    assert_eq!(granite.with_score().hidden_scale, None);
}

/// Gemma 3's two bases, by the keys of either version of transformers.
#[test]
fn local_layers_turn_by_a_base_of_their_own() {
    let thetas = |keys: Value| {
        let config = with(Family::Gemma3, keys).unwrap();
        assert_saved(&config);
        (config.rope.unwrap().theta, config.local_rope.unwrap().theta)
    };
    assert_eq!(thetas(json!({"rope_local_base_freq": null})), (1e6, 1e4));
    assert_eq!(thetas(json!({"rope_theta": 5.0, "rope_local_base_freq": 7.0})), (5.0, 7.0));
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    assert_eq!(thetas(json!({"rope_theta": 5.0, "rope_scaling": linear})), (5.0, 50.0));
    let both = json!({"full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_theta": 7.0}});
    assert_eq!(thetas(json!({"rope_parameters": both})), (5.0, 7.0));
}

#[test]
fn quantised_models_are_refused() {
    for (key, how, method) in [
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4}), "(gptq)"),
        ("quantization_config", json!({"quant_method": "compressed-tensors"}), "(compressed-tensors)"),
        ("quantization_config", json!({"load_in_4bit": true}), "(bitsandbytes)"),
        ("compression_config", json!({"quant_method": "compressed-tensors"}), "(compressed-tensors)"),
    ] {
        for family in FAMILIES {
            let e = with(family, json!({key: how})).unwrap_err();
            assert!(e.contains(method) && e.contains("unquantised") && e.contains(key), "{e}");
            assert!(with(family, json!({key: null})).is_ok());
        }
    }
}

/// Weights that no config says anything about.
#[test]
fn quantised_weights_are_known_by_their_names_and_types() {
    for family in FAMILIES {
        let name = up(family);
        let stem = name.strip_suffix("weight").expect("a weight");
        for beside in [
            "weight_scale",
            "weight_scale_inv",
            "input_scale",
            "scales",
            "qzeros",
            "g_idx",
            "weight.absmax",
            "weight.quant_state.bitsandbytes__nf4",
        ] {
            let dir = folder(family);
            edit(&dir, |file| file.add(&format!("{stem}{beside}"), &[1]));
            assert_refused(&dir, &[WEIGHTS, &format!("quantised (found `{stem}{beside}`)"), "unquantised"]);
        }
        for (dtype, bytes) in [("U8", 1), ("I8", 1), ("I32", 4), ("F8_E4M3", 1), ("F8_E5M2", 1)] {
            let dir = folder(family);
            edit(&dir, |file| {
                file.rename(&name, "old");
                let place = [file.data.len(), file.data.len() + 60 * bytes];
                file.data.resize(place[1], 0);
                let packed = json!({"dtype": dtype, "shape": [60, 1], "data_offsets": place});
                file.header.insert(name.clone(), packed);
            });
            assert_refused(
                &dir,
                &[
                    WEIGHTS,
                    &format!("quantised (`{name}` is {dtype}, not F64, F32, BF16 or F16)"),
                    "unquantised",
                ],
            );
        }
        for file in ["quantize_config.json", "quant_config.json", "hf_quant_config.json"] {
            let dir = folder(family);
            fs::write(dir.path().join(file), "{}").unwrap();
            assert_refused(&dir, &["quantised", &format!("(found {file})"), "unquantised"]);
        }
    }
}

/// Writes a right config alone.
fn configure_new(dir: &TempDir) {
    let json = Value::Object(tiny(Family::Llama).json);
    fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
}

/// What a download left in the place of a file.
#[test]
fn files_that_are_something_else_say_what() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    for (text, part) in [
        (pointer.as_bytes(), "is a Git LFS pointer, not the file itself; download it again"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"\n<html></html>", "is a web page"),
        (b"", "is empty"),
        (b"\xFF\xFE{\0}\0", "is UTF-16"),
        (b"\xEF\xBB\xBF{}", "byte-order mark"),
        (b"{\"a\"", "is not a JSON object: "),
    ] {
        for file in ["config.json", INDEX] {
            let dir = folder(Family::Llama);
            if file == INDEX {
                fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
            }
            fs::write(dir.path().join(file), text).unwrap();
            assert_refused(&dir, &[&format!("{file}: "), part]);
        }
    }
    let dir = folder(Family::Llama);
    fs::write(dir.path().join(WEIGHTS), pointer).unwrap();
    assert_refused(&dir, &["is not a whole safetensors file (it is a Git LFS pointer)", "download"]);
}

/// The folder itself, where it is not a model's.
#[test]
fn folders_that_are_no_models_say_what_they_are() {
    let put = |names: &[&str]| {
        let dir = TempDir::new().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        dir
    };
    for (names, parts) in [
        (&[][..], &["empty folder"][..]),
        (&["adapter_model.safetensors"], &["LoRA adapter of another model", "copy the whole folder"]),
        (
            &["training_args.bin", "pytorch_model.bin"],
            &["PyTorch's", "(pytorch_model.bin)", "save_pretrained"],
        ),
        (&["pytorch_model-00001-of-00002.bin"], &["(pytorch_model-00001-of-00002.bin)"]),
        (&["consolidated.00.pth"], &["(consolidated.00.pth)"]),
        (&["tf_model.h5"], &["TensorFlow's"]),
        (&["flax_model.msgpack"], &["Flax's"]),
        (&["q4.gguf"], &["llama.cpp's"]),
        (&["model.onnx"], &["ONNX's"]),
        (&["global_step100/x.pt", "latest"], &["DeepSpeed", "global_step100", "zero_to_fp32.py"]),
        (&["pytorch_model_fsdp_0/x"], &["FSDP", "merge-weights"]),
        (&["__0_0.distcp"], &["FSDP", "__0_0.distcp"]),
        (&["checkpoint-5/config.json"], &["config.json: is missing", "checkpoint-5 is a model folder"]),
        (&["notes.txt"], &["config.json: is missing"]),
    ] {
        let dir = put(names);
        assert_refused(&dir, parts);
        // With a config beside it the cause is the same, but for what only a config could tell.
        let only_config = names.is_empty() || parts[0].starts_with("config.json");
        fs::write(dir.path().join("config.json"), Value::Object(tiny(Family::Llama).json).to_string())
            .unwrap();
        assert_refused(&dir, if only_config { &["model.safetensors: is missing"] } else { parts });
    }
    let unlisted = put(&["model-00001-of-00002.safetensors"]);
    assert_refused(&unlisted, &["config.json: is missing"]);
    configure_new(&unlisted);
    assert_refused(&unlisted, &["model-00001-of-00002.safetensors", INDEX]);
    let adapter = put(&[]);
    fs::write(
        adapter.path().join("adapter_config.json"),
        r#"{"base_model_name_or_path": "a/folder/nowhere"}"#,
    )
    .unwrap();
    assert_refused(&adapter, &["`base_model_name_or_path`", "a/folder/nowhere", "no such folder"]);

    let message = |path: &Path| Folder::open(path).err().expect("no model").to_string();
    let file = put(&["file"]);
    assert!(message(&file.path().join("file")).contains("is a file"));
    assert!(message(Path::new("org/name")).contains("hf download org/name"));
    assert!(message(&file.path().join("nowhere")).contains("no such folder"));
}

#[test]
fn an_adapter_beside_a_model_is_noted() {
    let dir = folder(Family::Llama);
    fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    let opened = open(&dir);
    assert!(opened.notes().len() == 1 && opened.notes()[0].contains("adapter_config.json"));
}

#[test]
fn layers_that_differ_are_refused() {
    for family in FAMILIES {
        let e = with(family, json!({"per_layer_config": {"0": {"intermediate_size": 5}}})).unwrap_err();
        assert!(e.contains("`per_layer_config`"), "{e}");
        assert!(with(family, json!({"per_layer_config": {}})).is_ok());
    }
}

#[test]
fn a_config_without_a_type_says_what_to_add() {
    let mut json = tiny(Family::Llama).json;
    json.remove("model_type");
    json.insert("architectures".into(), json!(["LlamaForCausalLM"]));
    let e = Config::from_json(json).unwrap_err();
    assert!(e.contains("LlamaForCausalLM") && e.contains("model_type"), "{e}");
}

// ---- adapters -------------------------------------------------------------------------------------------------------

/// A model, and an adapter of random numbers for it in a folder of its own; with the settings that it was made by.
fn with_adapter(family: Family, settings: LoraSettings) -> (TempDir, TempDir, Case) {
    let base = folder(family);
    let plain = Case::new(tiny(family), 1);
    let mut case = Case::new(adapted(tiny(family), settings), 2);
    let (manifest, mut own) = (case.manifest(), plain.weights.into_iter());
    for (weights, shape) in case.weights.iter_mut().zip(manifest.iter()) {
        if !shape.pieces[0].name.starts_with("base_model.") {
            *weights = own.next().unwrap();
        }
    }
    let adapter = TempDir::new().unwrap();
    let weights = case.upload(&cpu());
    duel_model::save_adapter(&cpu(), adapter.path(), &case.config, &weights, base.path()).unwrap();
    (base, adapter, case)
}

fn every_map() -> LoraSettings {
    LoraSettings { r: 2, alpha: 3.0, targets: Modules::All, ..LoraSettings::default() }
}

fn hidden<B: Backend>(b: &B, c: &Config, w: &impl Weights<B>, batch: &Batch) -> Vec<f64> {
    let mut a = activations(b, c, batch.tokens.len(), Keep::Nothing);
    duel_model::forward(b, c, w, &batch.layout(b), &mut a);
    host(b, &a.hidden)
}

/// Read beside its model an adapter is what it was, to the bit; merged it is the same model to rounding; written again
/// its files are the same bytes.
#[test]
fn adapters_are_read_beside_their_model_and_merged() {
    let pattern = Modules::Pattern(r".*\.(q_proj|v_proj|up_proj|c_attn|query_key_value|qkv_proj)".into());
    let parts = LoraSettings { r: 3, rslora: true, targets: pattern, ..LoraSettings::default() };
    for (family, settings) in FAMILIES.into_iter().flat_map(|f| [(f, every_map()), (f, parts.clone())]) {
        let (base, dir, case) = with_adapter(family, settings);
        let (b, opened) = (cpu(), open(&dir));
        let beside = opened.adapted().unwrap();
        assert_eq!(*opened.config(), *open(&base).config());
        let weights = duel_model::load_as(&b, &opened, beside).unwrap();
        assert_eq!(Model::manifest(beside).into_vec(), case.manifest().into_vec(), "{family:?}");
        for (i, (got, want)) in weights.iter().into_iter().zip(case.upload(&b).iter()).enumerate() {
            assert_eq!(got, want, "{family:?}, parameter {i}");
        }
        let batch = Batch::text(&(0..9).map(|i| i * 3 % case.config.vocab as u32).collect::<Vec<_>>());
        let unmerged = hidden(&b, beside, &weights, &batch);
        let merged = duel_model::load(&b, &opened).unwrap();
        let merged = hidden(&b, opened.config(), &merged, &batch);
        let plain = hidden(&b, opened.config(), &duel_model::load(&b, &open(&base)).unwrap(), &batch);
        let most = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Some 25 products one after another, of a few roundings of 6e-8 each; an adapter left out moves them by 1.
        assert!(most(&merged, &unmerged) < 1e-4, "{family:?}: {}", most(&merged, &unmerged));
        assert!(most(&merged, &plain) > 1e-2, "{family:?}: the adapter does nothing");
        let again = TempDir::new().unwrap();
        duel_model::save_adapter(&b, again.path(), beside, &weights, base.path()).unwrap();
        for name in [ADAPTER, ADAPTER_CONFIG] {
            let bytes = |dir: &TempDir| fs::read(dir.path().join(name)).unwrap();
            assert_eq!(bytes(&again), bytes(&dir), "{family:?}: {name}");
        }
    }
}

#[test]
fn adapters_have_pefts_names_and_shapes() {
    let settings = LoraSettings { r: 2, saved: vec!["norm".into()], ..LoraSettings::default() };
    let (_base, dir, case) = with_adapter(Family::Llama, settings);
    let file = TensorFile::read(&dir.path().join(ADAPTER));
    let c = &case.config;
    let mut want = vec![("base_model.model.model.norm.weight".to_owned(), json!([c.width]))];
    for layer in 0..c.layers {
        let maps = [("q_proj", c.heads.q_width()), ("v_proj", c.heads.kv_width())];
        for (map, rows) in maps {
            let name = |side| format!("base_model.model.model.layers.{layer}.self_attn.{map}.{side}.weight");
            want.extend([(name("lora_A"), json!([2, c.width])), (name("lora_B"), json!([rows, 2]))]);
        }
    }
    want.sort_by(|a, b| a.0.cmp(&b.0));
    let got: Vec<(String, Value)> =
        file.names().into_iter().map(|name| (name.clone(), file.header[&name]["shape"].clone())).collect();
    assert_eq!(got, want);
    let (_base, dir, _) = with_adapter(Family::Gpt2, LoraSettings::default());
    let json = fs::read_to_string(dir.path().join(ADAPTER_CONFIG)).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["fan_in_fan_out"], &json["peft_type"]), (&json!(true), &json!("LORA")));
}

/// What a config says beyond the usual, as PEFT means it.
#[test]
fn adapters_follow_pefts_keys() {
    let (_base, dir, case) = with_adapter(Family::Llama, every_map());
    let modules = |more: Value| {
        let path = dir.path().join(ADAPTER_CONFIG);
        let before = fs::read_to_string(&path).unwrap();
        let mut json: Value = serde_json::from_str(&before).unwrap();
        merge(&mut json, more);
        fs::write(&path, json.to_string()).unwrap();
        let opened = Folder::open(dir.path()).map(|folder| folder.adapted().unwrap().clone());
        fs::write(&path, before).unwrap();
        opened.map_err(|e| e.to_string())
    };
    let own = modules(json!({})).unwrap();
    assert!(own.is_like(&case.config));
    let also = json!({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "mlp.up_proj", "down_proj"]});
    assert!(modules(also).unwrap().is_like(&own));
    let less = json!({"target_modules": ".*_proj", "alpha_pattern": {"mlp.*_proj": 6, "q_proj": 1.5}});
    let scales = |c: &Config| {
        let layer = &Model::manifest(c).layers[0];
        [&layer.qkv, &layer.up].map(|map| map.adapters.iter().map(|a| a.part.scale).collect::<Vec<_>>())
    };
    assert_eq!(scales(&modules(less).unwrap()), [vec![0.75, 1.5, 1.5], vec![3.0, 3.0]]);
    assert_eq!(scales(&modules(json!({"use_rslora": true})).unwrap())[1], [3.0 / 2f64.sqrt(); 2]);
    // Other tensors than the file has.
    for other in [
        json!({"r": 3}),
        json!({"rank_pattern": {"q_proj": 1}}),
        json!({"target_modules": ["q_proj"]}),
        json!({"layers_to_transform": [0]}),
        json!({"exclude_modules": ["v_proj"]}),
        json!({"modules_to_save": ["norm"]}),
    ] {
        let e = modules(other.clone()).unwrap_err();
        assert!(e.contains(ADAPTER) && e.contains("tensor `base_model.model.model."), "{other}: {e}");
    }
    for (key, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa")),
        ("layer_replication", json!([[0, 1]])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("modules_to_save", json!(["embed"])),
        ("lora_dropout", json!(1.5)),
        ("target_modules", json!(["embed_tokens"])),
        ("base_model_name_or_path", json!("a/folder/nowhere")),
        ("a_key_of_tomorrow", json!(1)),
    ] {
        let e = modules(json!({key: value})).unwrap_err();
        let named = if key == "target_modules" { "embed_tokens" } else { key };
        assert!(e.contains(ADAPTER_CONFIG) && e.contains(named), "{key}: {e}");
    }
}
