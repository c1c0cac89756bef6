//! The losses of samples by their names: what help and documentation say of them.

/// A loss of what a policy drew, by its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// As it is written in a configuration; TRL's name where TRL has it.
    pub name: &'static str,
    /// The loss: of each token `t` of response `i`.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

/// Every one.
pub const WORDS: &[Word] = &[
    Word {
        name: "reinforce",
        formula: "-(R - b) l / responses, R = r - beta sum(o - f), b the mean of all R before the step",
        source: "Williams, 1992",
    },
    Word {
        name: "rloo",
        formula: "-A min-clip(exp sum(l - o)) / responses, A = R less the mean R of the others",
        source: "Ahmadian et al., 2024",
    },
    Word {
        name: "grpo",
        formula: "(-A min-clip(rho) + beta rho k3) / (responses n), A = (r - mean) / (std + 1e-4) of the group",
        source: "Shao et al., 2024",
    },
    Word { name: "dapo", formula: "as grpo, / tokens of the step", source: "Yu et al., 2025" },
    Word {
        name: "dr_grpo",
        formula: "as grpo, / (responses max_completion_length)",
        source: "Liu et al., 2025",
    },
    Word {
        name: "ppo",
        formula: "(-A min-clip(rho) + vf_coef/2 max((V - G)^2, (clip(V) - G)^2)) / tokens, A whitened, of GAE",
        source: "Schulman et al., 2017; of language: Ziegler et al., 2019",
    },
    Word {
        name: "nash_md",
        formula: "-(P - 1/2 - beta sum(l - f)) l / responses, P that of winning against a mixture with the reference",
        source: "Munos et al., 2024",
    },
    Word {
        name: "sppo",
        formula: "1/2 (u - (P - 1/2)/beta)^2 of the best and the worst response, P their win rates",
        source: "Wu et al., 2024",
    },
];

/// The loss of this name.
pub fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name == name)
}
