//! Decoding is the packed forward, a token at a time; and a completion depends on nothing beside it.

use duel_backend::{Backend, Float};
use duel_cpu::Cpu;
use duel_model::decode::{Completion, Dialogue, Engine, FinishReason, Mixture, Request, Room, Sampling};
use duel_model::{Config, Family, Keep, Model};
use duel_tests::{
    Batch, Case, FAMILIES, Group, How, Objective, Random, activations, config, logits, merge, tiny,
};
use serde_json::{Value, json};

/// From the model's own distribution, with every filter and the penalty.
const DRAWN: Sampling = Sampling {
    max_new_tokens: 11,
    temperature: 0.9,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.01,
    repetition_penalty: 1.3,
    seed: 5,
};

type Weights<B> = Model<duel_backend::Real<B>>;

/// Prompts of very different lengths, one of a single token, and one of them twice.
fn prompts(c: &Config) -> Vec<Vec<u32>> {
    let mut random = Random(3);
    let mut prompts: Vec<_> = [4, 1, 13, c.max_positions - 20, 2].map(|n| random.tokens(n, c.vocab)).into();
    prompts.push(prompts[2].clone());
    prompts
}

fn generate<B: Backend>(
    b: &B,
    c: &Config,
    w: &Weights<B>,
    requests: &[Request<'_>],
    room: Room,
    how: &Sampling,
    stop: &[u32],
) -> Vec<Vec<Completion>> {
    let mut engine = Engine::new(b, c, room).unwrap();
    engine.generate(b, w, requests, how, stop).unwrap().completions
}

fn room(requests: &[Request<'_>]) -> Room {
    Room::of(requests.iter().copied(), 64, DRAWN.max_new_tokens)
}

#[test]
fn a_completion_depends_on_nothing_beside_it() {
    for family in FAMILIES {
        let case = Case::new(tiny(family), 8);
        let (b, c) = (Cpu::<f32>::new(1), &case.config);
        let (w, prompts, stop) = (case.upload(&b), prompts(c), [1, 2]);
        let requests = Request::repeated(&prompts, 3);
        let all = generate(&b, c, &w, &requests, room(&requests), &DRAWN, &stop);
        assert!(all.iter().all(|completions| completions.len() == 3));
        assert!(all.iter().any(|k| k[0] != k[1]), "{family:?}: every sample is the same");
        assert_ne!(all[2], all[5], "{family:?}: the same prompt under two numbers");

        let mut engine = Engine::new(&b, c, room(&requests)).unwrap();
        for (request, completions) in requests.iter().zip(&all) {
            for samples in [1, 2, 4] {
                let alone = [Request { samples, ..*request }];
                let drawn = engine.generate(&b, &w, &alone, &DRAWN, &stop).unwrap().flat();
                let n = samples.min(3);
                assert_eq!(drawn[..n], completions[..n], "{family:?}: {samples} of prompt {}", request.id);
            }
        }
        let backwards: Vec<_> = requests.iter().rev().copied().collect();
        let longest = room(&requests).longest;
        for sequences in [1, 2, 5, 18] {
            for prompts in [longest, longest + 6, 1000] {
                let narrow = Room { sequences, prompts, ..room(&requests) };
                let mut drawn = generate(&b, c, &w, &backwards, narrow, &DRAWN, &stop);
                drawn.reverse();
                assert_eq!(drawn, all, "{family:?}: {narrow:?}");
            }
        }
        for threads in [2, 3] {
            let b = Cpu::<f32>::new(threads);
            let w = case.upload(&b);
            let drawn = generate(&b, c, &w, &requests, room(&requests), &DRAWN, &stop);
            assert_eq!(drawn, all, "{family:?}: {threads} threads");
        }
    }
}

/// What is drawn, and its log-probability, against the packed forward of the whole sequence.
fn is_the_packed_forward<B: Backend>(b: &B) {
    for family in FAMILIES {
        let case = Case::new(tiny(family), 4);
        let (c, w) = (&case.config, case.upload(b));
        let prompts = prompts(c);
        let requests = Request::each(&prompts);
        for how in [Sampling::greedy(11), Sampling { max_new_tokens: 11, ..Sampling::default() }] {
            let all = generate(b, c, &w, &requests, room(&requests), &how, &[]);
            for (prompt, completion) in prompts.iter().zip(all.iter().flatten()) {
                let tokens = [prompt.as_slice(), &completion.tokens].concat();
                let mut a = activations(b, c, tokens.len(), Keep::Nothing);
                duel_model::forward(b, c, &w, &Batch::text(&tokens).layout(b), &mut a);
                let logits = logits(b, c, &w, &a, tokens.len());
                let rows = logits.chunks(c.vocab).skip(prompt.len() - 1);
                for ((row, &token), logp) in rows.zip(&completion.tokens).zip(&completion.logps) {
                    let most = row.iter().copied().fold(f64::MIN, f64::max);
                    let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
                    let want = row[token as usize] - most - sum.ln();
                    // The bound of tests/invariants.rs: 256 roundings of the largest number on the way, a logit.
                    let size = row.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
                    let bound = 256.0 * B::Real::EPSILON.max(B::Acc::EPSILON) * size;
                    assert!((logp - want).abs() <= bound, "{family:?}: {logp} or {want}");
                    if how.temperature == 0.0 {
                        assert!(
                            row[token as usize] >= most - bound,
                            "{family:?}: {token} is not the likeliest"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn decoding_is_the_packed_forward() {
    is_the_packed_forward(&Cpu::<f64>::new(1));
    is_the_packed_forward(&Cpu::<f32>::new(2));
}

/// With a temperature the log-probabilities are those of the distribution that is drawn from.
#[test]
fn log_probabilities_are_the_samplers() {
    let case = Case::new(tiny(FAMILIES[0]), 4);
    let (b, c) = (Cpu::<f64>::new(1), &case.config);
    let w = case.upload(&b);
    let requests = [Request { prompt: &[3, 1, 4], samples: 1, id: 0 }];
    let how = Sampling { max_new_tokens: 1, temperature: 0.5, top_k: 3, ..Sampling::default() };
    let completion = &generate(&b, c, &w, &requests, room(&requests), &how, &[])[0][0];
    let mut a = activations(&b, c, 3, Keep::Nothing);
    duel_model::forward(&b, c, &w, &Batch::text(&[3, 1, 4]).layout(&b), &mut a);
    let row = &logits(&b, c, &w, &a, 3)[2 * c.vocab..];
    let sum: f64 = row.iter().map(|x| (x / 0.5).exp()).sum();
    let want = row[completion.tokens[0] as usize] / 0.5 - sum.ln();
    assert!((completion.logps[0] - want).abs() < 1e-12, "{} or {want}", completion.logps[0]);
    let likelier = row.iter().filter(|&&x| x > row[completion.tokens[0] as usize]).count();
    assert!(likelier < 3, "top_k 3 drew a token that {likelier} are likelier than");
}

fn mixed<B: Backend>(
    b: &B,
    c: &Config,
    [w, reference]: [&Weights<B>; 2],
    coef: f64,
    requests: &[Request<'_>],
    room: Room,
    how: &Sampling,
) -> Vec<Vec<Completion>> {
    let mut engine = Engine::mixing(b, c, room).unwrap();
    let drawn = engine.run_mixed(b, w, Mixture { reference, coef }, requests, how, &[1, 2], |_| true);
    drawn.unwrap().completions
}

/// Two models mixed are one of them at the ends, to the bit, and depend on nothing beside a completion as one does.
fn mixtures_have_their_ends<B: Backend>(b: &B, other: &B) {
    for family in FAMILIES {
        let [case, reference] = [8, 9].map(|seed| Case::new(tiny(family), seed));
        let (c, prompts) = (&case.config, prompts(&case.config));
        let (w, w_ref) = (case.upload(b), reference.upload(b));
        let requests = Request::repeated(&prompts, 3);
        let (wide, narrow) = (room(&requests), Room { sequences: 2, ..room(&requests) });
        let mix = |coef| mixed(b, c, [&w, &w_ref], coef, &requests, wide, &DRAWN);
        assert_eq!(mix(0.0), generate(b, c, &w, &requests, wide, &DRAWN, &[1, 2]), "{family:?}");
        assert_eq!(mix(1.0), generate(b, c, &w_ref, &requests, wide, &DRAWN, &[1, 2]), "{family:?}");
        let half = mix(0.5);
        assert!(half != mix(0.0) && half != mix(1.0), "{family:?}");
        let on = [&case, &reference].map(|case| case.upload(other));
        assert_eq!(mixed(other, c, on.each_ref(), 0.5, &requests, narrow, &DRAWN), half, "{family:?}");
    }
}

#[test]
fn a_mixture_has_the_bits_of_its_ends() {
    mixtures_have_their_ends(&Cpu::<f32>::new(1), &Cpu::new(3));
    mixtures_have_their_ends(&Cpu::<half::bf16>::new(2), &Cpu::new(1));
}

/// Between them it draws by the blended logits of both packed forwards.
#[test]
fn a_mixture_is_drawn_of_blended_logits() {
    let [case, reference] = [4, 5].map(|seed| Case::new(tiny(FAMILIES[0]), seed));
    let (b, c, coef) = (Cpu::<f64>::new(1), &case.config, 0.3);
    let (w, prompts) = ([&case, &reference].map(|case| case.upload(&b)), prompts(&case.config));
    let (requests, how) = (Request::each(&prompts), Sampling { temperature: 0.9, ..Sampling::default() });
    let room = Room { new_tokens: how.max_new_tokens, ..room(&requests) };
    let all = mixed(&b, c, w.each_ref(), coef, &requests, room, &how);
    for (prompt, completion) in prompts.iter().zip(all.iter().flatten()) {
        let tokens = [prompt.as_slice(), &completion.tokens].concat();
        let [first, second] = w.each_ref().map(|w| {
            let mut a = activations(&b, c, tokens.len(), Keep::Nothing);
            duel_model::forward(&b, c, w, &Batch::text(&tokens).layout(&b), &mut a);
            logits(&b, c, w, &a, tokens.len())
        });
        let z: Vec<f64> =
            first.iter().zip(&second).map(|(z, f)| ((1.0 - coef) * z + coef * f) / 0.9).collect();
        let rows = z.chunks(c.vocab).skip(prompt.len() - 1);
        for ((row, &token), logp) in rows.zip(&completion.tokens).zip(&completion.logps) {
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            let want = row[token as usize] - most - row.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
            // As above: 256 roundings of the largest number on the way.
            let bound = 256.0 * f64::EPSILON * row.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
            assert!((logp - want).abs() <= bound, "{logp} or {want}");
        }
    }
}

#[test]
fn a_completion_ends_with_a_stop_or_for_its_length() {
    for family in FAMILIES {
        let case = Case::new(tiny(family), 8);
        let (b, c) = (Cpu::<f32>::new(1), &case.config);
        let (w, prompts) = (case.upload(&b), prompts(c));
        let requests = Request::repeated(&prompts, 2);
        let free = generate(&b, c, &w, &requests, room(&requests), &DRAWN, &[]);
        for completion in free.iter().flatten() {
            assert_eq!((completion.tokens.len(), completion.finish_reason), (11, FinishReason::Length));
        }
        let stop = [free[0][0].tokens[4], free[3][1].tokens[2]];
        let stopped = generate(&b, c, &w, &requests, room(&requests), &DRAWN, &stop);
        for (free, stopped) in free.iter().flatten().zip(stopped.iter().flatten()) {
            let end = free.tokens.iter().position(|token| stop.contains(token));
            let (len, reason) = end.map_or((11, FinishReason::Length), |end| (end + 1, FinishReason::Stop));
            assert_eq!((stopped.tokens.as_slice(), stopped.finish_reason), (&free.tokens[..len], reason));
            assert_eq!(stopped.logps, free.logps[..len]);
        }
        // The last position of the model.
        let long = Random(1).tokens(c.max_positions - 3, c.vocab);
        let requests = [Request { prompt: &long, samples: 1, id: 9 }];
        let completion = &generate(&b, c, &w, &requests, room(&requests), &DRAWN, &[])[0][0];
        assert_eq!((completion.tokens.len(), completion.finish_reason), (3, FinishReason::Length));
    }
}

/// A prompt is computed once for all its samples, and what was asked for too late is returned as it is.
#[test]
fn a_prompt_is_computed_once_and_work_can_be_stopped() {
    let case = Case::new(tiny(FAMILIES[0]), 8);
    let (b, c) = (Cpu::<f32>::new(1), &case.config);
    let (w, prompts) = (case.upload(&b), prompts(c));
    let requests = Request::repeated(&prompts, 7);
    let narrow = Room { sequences: 5, ..room(&requests) };
    let mut engine = Engine::new(&b, c, narrow).unwrap();
    let all = engine.generate(&b, &w, &requests, &DRAWN, &[]).unwrap();
    assert_eq!(all.pace.prompt_tokens, prompts.iter().map(|p| p.len() - 1).sum::<usize>());
    assert_eq!(all.pace.new_tokens, prompts.len() * 7 * 11);
    let mut seen = 0;
    let some = engine.run(&b, &w, &requests, &DRAWN, &[], |ended| {
        seen += ended.len();
        seen < 12
    });
    let some = some.unwrap();
    assert!((12..17).contains(&seen));
    let aborted = |c: &&Completion| c.finish_reason == FinishReason::Abort;
    assert_eq!(some.completions.iter().flatten().filter(aborted).count(), prompts.len() * 7 - seen);
    for (some, all) in some.completions.iter().flatten().zip(all.completions.iter().flatten()) {
        assert_eq!(some.tokens, all.tokens[..some.tokens.len()]);
    }
    // The engine is as new after that, and a request may ask for nothing.
    let none = [Request { samples: 0, ..requests[0] }, requests[1]];
    let drawn = engine.generate(&b, &w, &none, &DRAWN, &[]).unwrap();
    assert_eq!(drawn.completions, [Vec::new(), all.completions[1].clone()]);
}

/// Turn after turn is as each would be alone, and what a prompt has in common with the text before is not computed
/// again: after all of it, a part, nothing.
#[test]
fn a_dialogue_goes_on_in_its_cache() {
    for family in FAMILIES {
        let case = Case::new(tiny(family), 8);
        let (b, c) = (Cpu::<f64>::new(1), &case.config);
        let (w, mut random) = (case.upload(&b), Random(4));
        let mut dialogue = Dialogue::new(&b, c, usize::MAX).unwrap();
        let mut text = random.tokens(5, c.vocab);
        let mut cached = 0;
        for (turn, (kept, more)) in [(5, 0), (16, 4), (9, 3), (0, 7), (7, 0)].into_iter().enumerate() {
            text.truncate(kept);
            text.extend(random.tokens(more, c.vocab));
            let request = [Request { prompt: &text, samples: 1, id: turn as u64 }];
            let mut engine = Engine::new(&b, c, room(&request)).unwrap();
            let alone = engine.generate(&b, &w, &request, &DRAWN, &[]).unwrap().flat().remove(0);
            let mut heard = Vec::new();
            let asked = (turn as u64, &DRAWN);
            let (answer, pace) = dialogue
                .go_on(&b, &w, &text, asked, &[], |token| {
                    heard.push(token);
                    true
                })
                .unwrap();
            assert_eq!((&answer.tokens, &heard), (&alone.tokens, &alone.tokens), "{family:?}, turn {turn}");
            for (logp, alone) in answer.logps.iter().zip(&alone.logps) {
                assert!((logp - alone).abs() < 1e-10, "{family:?}, turn {turn}: {logp} for {alone}");
            }
            let common = kept.min(cached).min(text.len() - 1);
            assert!(pace.prompt_tokens <= text.len() - 1 - common, "{family:?}, turn {turn}: computed again");
            text.extend(&answer.tokens);
            cached = text.len() - 1;
        }
    }
}

/// A dialogue ends with a stop, where it is stopped, and with its window; and says what has no room there.
#[test]
fn a_dialogue_ends_in_its_window() {
    let case = Case::new(tiny(Family::Llama), 8);
    let (b, c) = (Cpu::<f32>::new(1), &case.config);
    let w = case.upload(&b);
    let mut dialogue = Dialogue::new(&b, c, 12).unwrap();
    let prompt = Random(4).tokens(5, c.vocab);
    let mut ask = |stop: &[u32], most| {
        let mut left = most;
        let asked = dialogue.go_on(&b, &w, &prompt, (0, &DRAWN), stop, |_| {
            left -= 1;
            left > 0
        });
        asked.unwrap().0
    };
    let free = ask(&[], 99);
    assert_eq!((free.tokens.len(), free.finish_reason), (7, FinishReason::Length));
    let stopped = ask(&[], 3);
    assert_eq!((&stopped.tokens[..], stopped.finish_reason), (&free.tokens[..3], FinishReason::Abort));
    let ended = ask(&free.tokens[..1], 99);
    assert_eq!((&ended.tokens[..], ended.finish_reason), (&free.tokens[..1], FinishReason::Stop));
    let said = dialogue.go_on(&b, &w, &[1; 12], (0, &DRAWN), &[], |_| true).unwrap_err().to_string();
    assert!(said.contains("12 tokens") && said.contains("shorten"), "{said}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let case = Case::new(tiny(FAMILIES[0]), 8);
    let (b, c) = (Cpu::<f32>::new(1), &case.config);
    let mut w = case.upload(&b);
    let room = Room { sequences: 2, longest: c.max_positions, prompts: c.max_positions, new_tokens: 11 };
    let mut engine = Engine::new(&b, c, room).unwrap();
    let long = vec![0; c.max_positions];
    for (prompt, how, part) in [
        (&[][..], DRAWN, "prompt 3 is empty"),
        (&[0, c.vocab as u32][..], DRAWN, "embeddings; its tokenizer is not the model's"),
        (&long, DRAWN, "positions; shorten it"),
        (&[1][..], Sampling { top_p: f64::NAN, ..DRAWN }, "`top_p` is NaN; it must be above 0"),
    ] {
        let said = engine.generate(&b, &w, &[Request { prompt, samples: 1, id: 3 }], &how, &[]);
        let said = said.unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
    let requests = [Request { prompt: &[1, 2], samples: 1, id: 3 }];
    w.layers[1].down.weight[5] = f32::NAN;
    let said = engine.generate(&b, &w, &requests, &DRAWN, &[]).unwrap_err().to_string();
    let names = case.manifest();
    let name = &names.layers[1].down.weight.pieces[0].name;
    assert!(said.contains("prompt 3, sample 0") && said.contains(&format!("`{name}`")), "{said}");
    let good = case.upload(&b);
    let mut engine = Engine::mixing(&b, c, room).unwrap();
    for (coef, part) in [(0.5, format!("`{name}` of the reference has values")), (1.5, "from 0 to 1".into())]
    {
        let mixture = Mixture { reference: &w, coef };
        let said = engine.run_mixed(&b, &good, mixture, &requests, &DRAWN, &[], |_| true);
        assert!(said.as_ref().unwrap_err().to_string().contains(&part), "{said:?}");
    }
    w.layers[1].down.weight[5] = 3e38;
    w.layers[1].down.weight.fill(3e38);
    let said = engine.generate(&b, &w, &requests, &DRAWN, &[]).unwrap_err().to_string();
    assert!(said.contains("all weights are finite"), "{said}");
}

/// A model that turns long sequences in another way than short ones: each sequence is what it is in a model that turns
/// all in its way, packed beside the other or decoded, and none becomes long on the way.
#[test]
fn long_sequences_turn_in_their_own_way() {
    let model = |short: &[f64], long: &[f64]| {
        let mut json = Value::Object(tiny(Family::Phi3).json);
        let scaling = json!({"type": "longrope", "short_factor": short, "long_factor": long});
        merge(
            &mut json,
            json!({"rope_scaling": scaling, "original_max_position_embeddings": 5, "partial_rotary_factor": 1.0}),
        );
        Case::new(config(json), 3)
    };
    let (short, long) = ([1.0, 1.5], [2.0, 9.0]);
    let [both, all_short, all_long] =
        [(short, long), (short, short), (long, long)].map(|(s, l)| model(&s, &l));
    let (b, how) = (Cpu::<f32>::new(1), How::new(Objective::Sft(1.0)));
    let group = |prompt: &[u32], responses: &[&[u32]]| Group {
        prompt: prompt.to_vec(),
        responses: responses.iter().map(|r| r.to_vec()).collect(),
    };
    let groups = [group(&[1, 2, 3], &[&[4, 5], &[6]]), group(&[1, 2, 3], &[&[4, 5, 6], &[7]])];
    let score = |case: &Case, groups: &[Group]| case.score(&b, &Batch::packed(groups), how).stats;
    let [first, second] = [score(&all_short, &groups[..1]), score(&all_long, &groups[1..])];
    assert_ne!(score(&all_short, &groups[1..]), second);
    assert_eq!(score(&both, &groups), [first, second].concat());

    let run = |case: &Case, prompt: &[u32], new| {
        let (w, prompts) = (case.upload(&b), [prompt]);
        let requests = Request::each(&prompts);
        let room = Room::of(requests.iter().copied(), 1, new);
        let mut engine = Engine::new(&b, &case.config, room).unwrap();
        engine
            .generate(&b, &w, &requests, &Sampling::greedy(new), &[])
            .map(|drawn| drawn.flat()[0].logps.clone())
    };
    for (prompt, new, like) in [(&[1u32, 2, 3][..], 2, &all_short), (&[1, 2, 3, 4, 5, 6][..], 4, &all_long)] {
        assert_eq!(run(&both, prompt, new).unwrap(), run(like, prompt, new).unwrap());
    }
    let e = run(&both, &[1, 2, 3], 3).unwrap_err().to_string();
    assert!(e.contains("pass the 5 up to") && e.ends_with("ask for at most 2"), "{e}");
}
