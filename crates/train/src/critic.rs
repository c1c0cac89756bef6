//! What PPO expects of a response that has begun: a scalar head on the policy's own hidden states.

use crate::Error;
use duel_backend::{Acc, Backend, Float, Real};
use std::path::Path;

/// Name of its weight in a file, as TRL's value heads have it.
const NAME: &str = "v_head.summary.weight";

/// A value head `[1, width]` on the trunk of the policy (Ziegler et al., 2019). It begins with 0: nothing is expected.
pub struct Critic<B: Backend> {
    /// Its weight.
    pub weight: Real<B>,
    /// Its gradient.
    pub gradient: Acc<B>,
}

impl<B: Backend> Critic<B> {
    /// One of a model of this width.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, width: usize) -> Result<Self, Error> {
        Ok(Critic { weight: b.alloc(width)?, gradient: b.alloc(width)? })
    }

    /// Writes the weight, in the precision of sums.
    ///
    /// # Errors
    /// The file cannot be written, or the device failed.
    pub fn save(&self, b: &B, path: &Path) -> Result<(), Error> {
        let mut host = vec![B::Real::default(); b.len(&self.weight)];
        b.download(&mut host, &self.weight, 0)?;
        let wide: Vec<B::Acc> = host.iter().map(|x| B::Acc::from_f64(x.to_f64())).collect();
        let mut buffer = b.alloc(wide.len())?;
        b.upload(&mut buffer, 0, &wide);
        Ok(duel_model::save_flat(b, path, &[(NAME.into(), &buffer)])?)
    }

    /// Reads what [`Critic::save`] wrote, bit for bit.
    ///
    /// # Errors
    /// The file is missing, damaged, or of a model of another width.
    pub fn load(&mut self, b: &B, path: &Path) -> Result<(), Error> {
        if !path.exists() {
            return Err(Error::new(format!(
                "{} is missing, and with it the value head: the checkpoint is damaged, or none of `method = ppo`; use \
                 another",
                path.display()
            )));
        }
        let mut buffer = b.alloc(b.len(&self.weight))?;
        duel_model::load_flat(b, path, vec![(NAME.into(), &mut buffer)])?;
        let mut wide = vec![B::Acc::default(); b.len(&buffer)];
        b.download(&mut wide, &buffer, 0)?;
        let host: Vec<B::Real> = wide.iter().map(|x| B::Real::from_f64(x.to_f64())).collect();
        b.upload(&mut self.weight, 0, &host);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::Storage;
    use duel_cpu::Cpu;

    #[test]
    fn it_comes_back_to_the_bit() {
        let b = Cpu::<<Cpu as Storage>::Narrow>::new(1);
        let path = std::env::temp_dir().join(format!("duel-critic-{}.safetensors", std::process::id()));
        let mut critic = Critic::new(&b, 3).unwrap();
        let said = critic.load(&b, &path).unwrap_err().to_string();
        assert!(said.contains("is missing, and with it the value head"), "{said}");
        critic.weight = [0.1, -3.0, 7e-5].map(<Cpu as Storage>::Narrow::from_f64).to_vec();
        critic.save(&b, &path).unwrap();
        let mut other = Critic::new(&b, 3).unwrap();
        other.load(&b, &path).unwrap();
        assert_eq!(other.weight, critic.weight);
        let said = Critic::new(&b, 4).unwrap().load(&b, &path).unwrap_err().to_string();
        assert!(said.contains(NAME), "{said}");
        std::fs::remove_file(path).unwrap();
    }
}
