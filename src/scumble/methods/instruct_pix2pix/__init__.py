"""InstructPix2Pix (Brooks et al. 2022, "InstructPix2Pix: Learning to Follow Image Editing Instructions",
arXiv:2211.09800): a denoiser that also sees the picture to edit, told what to do in words.

`editing` holds `Config` and `edit`, their section 3.2.1 with equation 3, and `find_scales`; `learning` holds
`Learning`, `loss`, their equation 2, and `learn`, their section 3.2.

Where we differ, and why:

- The picture keeps its size: it is continued by its edge to the model's grid and cropped back. The released
  code stretches and crops it to multiples of 64.
- A branch whose weight is zero is not asked for: at s_I = 1 two calls are enough, at s_I = s_T = 1 one.
- Any sampler; the paper's ancestral Euler is the preset `paper`, with its spacing, even in log sigma at real
  times.
- A mask keeps everything outside it to the bit; while the picture is denoised the kept part follows it.
- In learning, a pair whose instruction says left or right is never mirrored, and the pictures are cut and not
  stretched to a square.
- The picture is encoded to the mode of its posterior and not scaled, as in the released checkpoints, which
  need it so; the paper does not say.
"""

from scumble.methods.instruct_pix2pix.editing import PRESETS as PRESETS
from scumble.methods.instruct_pix2pix.editing import Config as Config
from scumble.methods.instruct_pix2pix.editing import Request as Request
from scumble.methods.instruct_pix2pix.editing import edit as edit
from scumble.methods.instruct_pix2pix.editing import find_scales as find_scales
from scumble.methods.instruct_pix2pix.editing import refuse_other_models as refuse_other_models
from scumble.methods.instruct_pix2pix.editing import scales as scales
from scumble.methods.instruct_pix2pix.learning import LEARNING as LEARNING
from scumble.methods.instruct_pix2pix.learning import Learning as Learning
from scumble.methods.instruct_pix2pix.learning import learn as learn
from scumble.methods.instruct_pix2pix.learning import loss as loss
