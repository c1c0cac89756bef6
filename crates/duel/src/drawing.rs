//! How tokens are drawn: the flags that commands which draw have in common.

use clap::Args;
use duel_backend::Backend;
use duel_model::decode::{Engine, Plan, Room, Sampling};
use duel_model::{Folder, Held, load_frozen, load_in_8bit};
use duel_train::Error;

/// All but the temperature and the longest continuation, whose defaults are each command's own.
#[derive(Args)]
pub struct Drawing {
    /// Sample among this many likeliest tokens; 0: all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Sample among the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Sample among tokens at least this times as likely as the likeliest; 0: all
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Divides the positive logits of tokens that the text has already, multiplies the negative ones
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Hold the weights in 8-bit blocks, on the CPU: a quarter of float32's memory and faster for few sequences, but
    /// other probabilities (of a model of 135 M parameters, 0.002 nats a token away in the mean)
    #[arg(long)]
    pub load_in_8bit: bool,
    /// Seed of the sampling
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

impl Drawing {
    /// The weights of `folder` and what draws from them, after a line that says what they take.
    ///
    /// # Errors
    /// They cannot be read, or the device has no room for them or no products with such weights.
    pub fn engine<B: Backend>(
        &self,
        b: &B,
        folder: &Folder,
        room: Room,
    ) -> Result<(Held<B>, Engine<B>), Error> {
        let weights = self.weights(b, folder, Engine::<B>::plan(b.portions(), folder.config(), room))?;
        Ok((weights, Engine::new(b, folder.config(), room)?))
    }

    /// The weights of `folder`, after a line that says what they take, and what decodes with them.
    ///
    /// # Errors
    /// They cannot be read, or the device has no room for them or no products with such weights.
    pub fn weights<B: Backend>(&self, b: &B, folder: &Folder, plan: Plan) -> Result<Held<B>, Error> {
        let (weights, form) = match self.load_in_8bit {
            true => (load_in_8bit(b, folder)?, " in 8-bit blocks"),
            false => (load_frozen(b, folder)?, ""),
        };
        let bytes = weights.bytes(b) as f64 / 1e9;
        duel_train::say!("{}; weights of {bytes:.2} GB{form}; {plan}", b.describe());
        Ok(weights)
    }

    /// What the flags say, of continuations of up to `longest` tokens and of `samples` of each prompt that a flag asks
    /// for, if it is in range and has an effect.
    ///
    /// # Errors
    /// The flag that is out of range, or idle at temperature 0.
    pub fn sampling(
        &self,
        temperature: f64,
        longest: u32,
        (flag, samples): (&str, u32),
    ) -> Result<Sampling, Error> {
        let how = Sampling {
            max_new_tokens: longest as usize,
            temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        how.check()?;
        let idle = [
            (flag, samples > 1),
            ("--top-k", self.top_k > 0),
            ("--top-p", self.top_p < 1.0),
            ("--min-p", self.min_p > 0.0),
        ];
        match idle.iter().find(|(_, said)| *said && temperature == 0.0) {
            Some((flag, _)) => Err(Error::new(format!(
                "{flag} has no effect at temperature 0, where the likeliest token is taken; give --temperature 1 too"
            ))),
            None => Ok(how),
        }
    }
}
