//! Vectors of texts, against llama.cpp's.

use modelembed::{Engine, EngineOptions, LoadOptions, Pooling, Row, Run, TokenId, Wants};
use modelembed_testkit::{diff, tiny, tiny_spec};

use crate::common::{TinyModels, golden_json, ids, load};

#[test]
fn pooled_vectors_equal_the_goldens_in_any_company() {
    let dir = TinyModels::new();
    let golden = golden_json("pooled.json");
    let tokens = ids(&golden["ids"]);
    for (name, vectors) in golden["vectors"].as_object().expect("models") {
        let options = LoadOptions::default().exact(true).threads(2);
        let model = load(&dir.write(name, &tiny(&tiny_spec(name))), &options);
        // Chunks of 16: a run goes through several.
        let options = EngineOptions::default().sequences(4).ctx_tokens(64).chunk_tokens(16);
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let sequences: Vec<_> = (0..4).map(|_| engine.add().expect("a sequence")).collect();
        let kinds = [("mean", Pooling::Mean), ("first", Pooling::First), ("last", Pooling::Last)];
        let mut runs = vec![Run::new(sequences[3], &tokens[..5]).wants(Wants::All)];
        runs.extend(
            kinds.iter().zip(&sequences).map(|((_, kind), &id)| Run::new(id, &tokens).wants(Wants::Pooled(*kind))),
        );
        let mut n_rows = 0;
        let each = &mut |row: Row<'_>| {
            assert_eq!(row.run, 0, "who wants a vector gets no logits");
            n_rows += 1;
        };
        engine.step(&runs, each).expect("evaluates");
        assert_eq!((n_rows, engine.pooled(0)), (5, None));
        for (i, (pooling, _)) in kinds.iter().enumerate() {
            let want = vectors[*pooling].as_array().expect("a vector");
            let want: Vec<f32> = want.iter().map(|x| x.as_f64().expect("a number") as f32).collect();
            let got = engine.pooled(i + 1).expect("a vector");
            let d = diff(got, &want);
            assert!(d.max_abs < 1e-4, "{name}, {pooling}: {d}");
        }
        let (own, step) = (sequences[3], [TokenId(1)]);
        engine.step(&[Run::new(own, &step)], &mut |_| {}).expect("evaluates");
        assert!(engine.pooled(0).is_none() && engine.pooled(1).is_none());
        let refused = engine.step(&[Run::new(own, &step).wants(Wants::Pooled(Pooling::Rank))], &mut |_| {});
        assert!(refused.is_err());
    }
}
