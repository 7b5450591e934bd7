"""The dimensions of the model `toybox`, in the form of docs/model-format.md."""
from autoencoder import SHAPE
from world.captions import Tokenizer
from world.clip import CONTROLS
from world.screen import PIXELS

TOKENIZER = Tokenizer(24)
TEXT = {"kind": "umt5", "vocab_size": len(TOKENIZER.words), "dim": 128, "dim_attn": 128, "dim_ffn": 256, "num_heads": 4, "num_layers": 2,
        "num_buckets": 32, "max_dist": 128, "eps": 1e-6, "text_len": 24}
TOKENS = PIXELS // SHAPE["spatial_stride"] // 2                               # across the screen
DIT = {"kind": "wan-causal", "dim": 192, "ffn_dim": 768, "num_heads": 3, "num_layers": 6, "in_dim": SHAPE["latent_channels"],
       "out_dim": SHAPE["latent_channels"], "patch_size": [1, 2, 2], "freq_dim": 256, "text_dim": 128, "text_len": 24, "eps": 1e-6,
       "qk_norm": True, "cross_attn_norm": True, "rope_theta": 100, "control_dim": len(CONTROLS), "pooled_text": True,
       "position_grid": [TOKENS, TOKENS]}
STREAM = {"latents_per_chunk": 2, "window_latents": 8, "sink_latents": 0, "context_timestep": 0}
SCHEDULES = {"1": [1000], "2": [1000, 750], "4": [1000, 900, 750, 500]}
LABELS = {"steer_x": "steer left/right", "steer_y": "steer up/down", "pan_x": "camera left/right", "pan_y": "camera up/down", "zoom": "zoom out/in",
          "smile": "smile", "laugh": "laugh", "cry": "cry", "wink": "wink", "angry": "angry", "surprised": "surprised"}
EXAMPLES = ["a fox jumps in the snow", "two balloons float up over the city at sunset", "a smiling face nods", "the rocket spins, then flies away",
            "a cat goes to the left on the beach at night", "a big whale sways under the sea", "the ufo circles in space", "a car drives to the right on the road",
            "a penguin bounces in the snow at sunset", "a crying face shakes in the room", "a little bee flies in the meadow", "a ball rolls along in the desert"]
