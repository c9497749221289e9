//! The CLIP tokenizer against transformers.

use scalediff::error::{ErrorKind, Result};
use scalediff::models::text::ClipTokenizer;
use serde_json::{Value, json};

use super::{Scratch, golden, goldens};

/// The goldens' vocabulary with the config files of one case.
fn tokenizer(name: &str, files: &[(&str, &Value)]) -> (Scratch, Result<ClipTokenizer>) {
    let scratch = Scratch::new(name);
    for file in ["vocab.json", "merges.txt"] {
        let source = goldens().join("tokenizer").join(file);
        scratch.write(&format!("tokenizer/{file}"), std::fs::read(source).unwrap());
    }
    for (file, value) in files.iter().filter(|(_, value)| !value.is_null()) {
        scratch.write(&format!("tokenizer/{file}"), value.to_string());
    }
    let opened = ClipTokenizer::open(&scratch.files(), "tokenizer");
    (scratch, opened)
}

#[test]
fn tokens_equal_those_of_transformers() {
    let golden = golden("tokenize.json");
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let configs = [
            ("tokenizer_config.json", &case["tokenizer_config"]),
            ("special_tokens_map.json", &case["special_tokens_map"]),
        ];
        let (_scratch, opened) = tokenizer(name, &configs);
        let opened = opened.unwrap();
        assert_eq!(opened.length(), 77);
        for (i, text) in golden["texts"].as_array().unwrap().iter().enumerate() {
            let got = opened.encode(text.as_str().unwrap()).unwrap();
            let mut want: Vec<u32> = serde_json::from_value(case["ids"][i].clone()).unwrap();
            want.resize(77, case["pad"].as_u64().unwrap() as u32);
            assert_eq!(got.ids, want, "{name}: {text}");
            assert_eq!(got.cut as u64, case["cut"][i].as_u64().unwrap(), "{name}: {text}");
        }
    }
}

#[test]
fn tokenizer_json_gives_the_same_ids_as_its_parts() {
    let (scratch, parts) = tokenizer("parts", &[]);
    let read = |f: &str| std::fs::read_to_string(goldens().join("tokenizer").join(f)).unwrap();
    let vocab: Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let merges = read("merges.txt");
    let lines: Vec<&str> = merges.lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|l| l.split(' ').collect()).collect();
    std::fs::remove_file(scratch.0.join("tokenizer/vocab.json")).unwrap();
    for merges in [json!(lines), json!(pairs)] {
        let file = json!({"model": {"type": "BPE", "vocab": vocab, "merges": merges}});
        scratch.write("tokenizer/tokenizer.json", file.to_string());
        let whole = ClipTokenizer::open(&scratch.files(), "tokenizer").unwrap();
        let text = "Snow on a mountain, fox's LAKE!!! caf\u{e9} \u{1f600}<|endoftext|>";
        assert_eq!(whole.encode(text).unwrap(), parts.as_ref().unwrap().encode(text).unwrap());
    }
    scratch.write(
        "tokenizer/tokenizer.json",
        r#"{"model": {"type": "Unigram", "vocab": {}, "merges": []}}"#,
    );
    let error = ClipTokenizer::open(&scratch.files(), "tokenizer").unwrap_err().to_string();
    assert!(error.contains("model.type is \"Unigram\""), "{error}");
}

#[test]
fn tokenizer_configs_that_do_not_fit_are_errors() {
    let says = |config: Value, what: &str| {
        let (_scratch, opened) = tokenizer("misfit", &[("tokenizer_config.json", &config)]);
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error} lacks {what}");
    };
    says(json!({"pad_token": "<pad>"}), "pad_token \"<pad>\" is not in the vocabulary");
    says(json!({"pad_token": 7}), "pad_token is 7");
    says(json!({"padding_side": "left"}), "padding_side is \"left\", expected \"right\"");
    says(json!({"model_max_length": 1}), "model_max_length is 1");
    says(json!({"model_max_length": "77"}), "model_max_length is \"77\"");
    says(json!({"added_tokens_decoder": {"x": {}}}), "added_tokens_decoder");
    says(json!({"added_tokens_decoder": {"5": {"content": "<new>"}}}), "added token \"<new>\"");
    says(json!([1]), "tokenizer_config.json: invalid type");
    let unknown = json!({"model_max_length": 1e30});
    assert_eq!(tokenizer("huge", &[("tokenizer_config.json", &unknown)]).1.unwrap().length(), 77);
}

#[test]
fn very_long_prompts_are_bounded() {
    let (_scratch, opened) = tokenizer("long", &[]);
    let opened = opened.unwrap();
    let long = opened.encode(&"x".repeat(100_000)).unwrap();
    assert_eq!((long.ids.len(), long.cut), (77, 100_000 - 75));
    assert_eq!(opened.encode(&"x".repeat(2 << 20)).unwrap_err().kind(), ErrorKind::Usage);
}
