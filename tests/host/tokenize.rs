//! The CLIP and T5 tokenizers against transformers.

use proptest::prelude::*;
use scalediff::error::{ErrorKind, Result};
use scalediff::models::text::{ClipTokenizer, T5Tokenizer};
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

/// A T5 tokenizer of one vocabulary file, with the config files of one case.
fn t5(
    name: &str,
    file: (&str, &[u8]),
    configs: &[(&str, &Value)],
) -> (Scratch, Result<T5Tokenizer>) {
    let scratch = Scratch::new(name);
    scratch.write(&format!("tokenizer_2/{}", file.0), file.1);
    for (file, value) in configs.iter().filter(|(_, value)| !value.is_null()) {
        scratch.write(&format!("tokenizer_2/{file}"), value.to_string());
    }
    let opened = T5Tokenizer::open(&scratch.files(), "tokenizer_2");
    (scratch, opened)
}

fn spiece() -> Vec<u8> {
    std::fs::read(goldens().join("t5/spiece.model")).unwrap()
}

/// The goldens' `tokenizer.json`, which is kept without the character map that `spiece.model` has too.
fn t5_json() -> Value {
    let (model, golden) = (spiece(), golden("t5.json"));
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(goldens().join("t5/tokenizer.json")).unwrap())
            .unwrap();
    let [start, length] = [0, 1].map(|i| golden["charsmap"][i].as_u64().unwrap() as usize);
    json["normalizer"]["precompiled_charsmap"] = base64(&model[start..start + length]).into();
    json
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        let digit =
            |i| if i <= group.len() { DIGITS[(bits >> (18 - 6 * i)) as usize & 63] } else { b'=' };
        [0, 1, 2, 3].map(digit).map(char::from)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[test]
fn t5_tokens_equal_those_of_transformers() {
    let golden = golden("t5.json");
    let length = golden["length"].as_u64().unwrap() as u32;
    let (model, json) = (spiece(), t5_json().to_string());
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let configs = [
            ("tokenizer_config.json", &case["tokenizer_config"]),
            ("special_tokens_map.json", &case["special_tokens_map"]),
        ];
        for file in [("spiece.model", &model[..]), ("tokenizer.json", json.as_bytes())] {
            let (_scratch, opened) = t5(&format!("t5-{name}-{}", file.0), file, &configs);
            let opened = opened.unwrap();
            for (i, text) in golden["texts"].as_array().unwrap().iter().enumerate() {
                let text = text.as_str().unwrap();
                let got = opened.encode(text, length).unwrap();
                let mut want: Vec<u32> = serde_json::from_value(case["ids"][i].clone()).unwrap();
                want.resize(length as usize, 0);
                assert_eq!(got.ids, want, "{name} {}: {text:?}", file.0);
                let cut = case["cut"][i].as_u64().unwrap();
                assert_eq!(got.cut as u64, cut, "{name} {}: {text:?}", file.0);
                compared += 1;
            }
        }
    }
    assert!(compared >= 2 * 3 * 60, "{compared} texts");
}

#[test]
fn t5_prompts_have_the_length_asked_for() {
    let (_scratch, opened) = t5("t5-length", ("spiece.model", &spiece()), &[]);
    let opened = opened.unwrap();
    let whole = opened.encode("a red ball", 512).unwrap();
    let tokens = whole.ids.iter().position(|id| *id == 1).unwrap();
    assert_eq!(
        (whole.ids.len(), whole.cut, &whole.ids[tokens + 1..]),
        (512, 0, &[0; 512][tokens + 1..])
    );
    let cut = opened.encode("a red ball", 3).unwrap();
    assert_eq!((&cut.ids[..2], cut.ids[2], cut.cut), (&whole.ids[..2], 1, tokens - 2));
    assert_eq!(opened.encode("a red ball", 1).unwrap().ids, [1]);
    for (text, length) in
        [("a".to_owned(), 0), ("a".to_owned(), u32::MAX), ("x".repeat(2 << 20), 9)]
    {
        assert_eq!(opened.encode(&text, length).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn t5_files_that_do_not_fit_are_errors() {
    let says = |file: (&str, &[u8]), config: Value, what: &str| {
        let (_scratch, opened) = t5("t5-misfit", file, &[("tokenizer_config.json", &config)]);
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error} lacks {what}");
    };
    let model = |bytes: &[u8], what: &str| says(("spiece.model", bytes), Value::Null, what);
    says(
        ("other", b""),
        Value::Null,
        "tokenizer_2/tokenizer.json: no such file, nor a spiece.model",
    );
    model(b"", "tokenizer_2/spiece.model: none of the pieces is the unknown one");
    model(
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        "cut short: 4398046511103 bytes expected, 0 left",
    );
    model(&[0xff; 11], "a varint of more than 10 bytes");
    model(&[0x0a, 3, 0x0a, 1, 0xff], "piece 0: invalid utf-8");
    model(&[0x08, 1], "field 1 is a varint");
    model(&[0x0b], "wire type 3");
    model(&[0x12, 2, 0x18, 2], "trainer_spec: model_type is bpe, expected unigram");
    model(&[0x12, 2, 0x18, 9], "model_type is 9");
    model(&[0x1a, 2, 0x20, 0], "normalizer_spec: remove_extra_whitespaces is false");
    let long = [vec![0x0a, 0x84, 8, 0x0a, 0x81, 8], vec![b'x'; 1025]].concat();
    model(&[&long[..], &spiece()].concat(), "piece 0 has 1025 bytes");
    model(
        &[&[0x0a, 5, 0x15, 0, 0, 0xc0, 0x7f], &spiece()[..]].concat(),
        "piece 0 has the score NaN",
    );
    for charsmap in [vec![4], vec![0xff; 4], vec![4, 0, 0, 0, 0, 0, 0, 0], vec![0, 0, 0, 0]] {
        let spec = [vec![0x1a, charsmap.len() as u8 + 2, 0x12, charsmap.len() as u8], charsmap];
        model(&[spiece(), spec.concat()].concat(), "the precompiled character map is broken");
    }
    let config = |config: Value, what: &str| says(("spiece.model", &spiece()), config, what);
    config(json!({"pad_token": "<none>"}), "pad_token \"<none>\" is not in the vocabulary of 520");
    config(json!({"padding_side": "left"}), "padding_side is \"left\"");
    config(json!({"extra_ids": 1e9}), "extra_ids is 1000000000.0, expected 0 to 10000");
    let json = |path: &str, value: Value, what: &str| {
        let mut file = t5_json();
        *file.pointer_mut(path).unwrap() = value;
        says(("tokenizer.json", file.to_string().as_bytes()), Value::Null, what);
    };
    json("/model/type", json!("BPE"), "tokenizer_2/tokenizer.json: model.type is \"BPE\"");
    json("/model/unk_id", json!(null), "model.unk_id is missing");
    json("/model/unk_id", json!(9999), "the unknown piece is 9999 of 520 pieces");
    json("/model/vocab", json!([]), "the unknown piece is 2 of 0 pieces");
    json("/model/vocab", json!({}), "model: invalid type: map");
    json("/normalizer/precompiled_charsmap", json!("A*"), "is not base64");
    json("/normalizer/precompiled_charsmap", json!("AAAA"), "character map is broken");
}

#[test]
fn t5_without_a_character_map_keeps_characters_as_they_are() {
    let mut file = t5_json();
    file["normalizer"] = Value::Null;
    let (_scratch, opened) = t5("t5-bare", ("tokenizer.json", file.to_string().as_bytes()), &[]);
    let opened = opened.unwrap();
    assert_eq!(opened.encode("\u{ff21}", 3).unwrap().ids[1], 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn t5_models_of_random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in ".{0,40}",
    ) {
        if let (_scratch, Ok(opened)) = t5("t5-random", ("spiece.model", &bytes), &[]) {
            let _ = opened.encode(&text, 16);
        }
    }

    /// A real model with some bytes changed, then cut, mostly still opens: its links must have been checked.
    #[test]
    fn t5_models_with_wrong_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        kept in prop::option::of(any::<prop::sample::Index>()),
        text in ".{0,40}",
    ) {
        let mut model = spiece();
        for (at, byte) in changes {
            let at = at.index(model.len());
            model[at] = byte;
        }
        if let Some(kept) = kept {
            model.truncate(kept.index(model.len()));
        }
        if let (_scratch, Ok(opened)) = t5("t5-wrong", ("spiece.model", &model), &[]) {
            let _ = opened.encode(&text, 16);
        }
    }

    #[test]
    fn t5_encodes_any_text(text in "(.|\\PC|[\u{0}-\u{ff}]|[\u{300}-\u{36f}]|</s>|<extra_id_7>){0,60}") {
        let opened = T5.with(|t5| t5.encode(&text, 64)).unwrap();
        prop_assert_eq!(opened.ids.len(), 64);
    }
}

thread_local! {
    static T5: T5Tokenizer = t5("t5-any", ("spiece.model", &spiece()), &[]).1.unwrap();
}
