"""Text2LIVE (Bar-Tal et al. 2022, "Text2LIVE: Text-Driven Layered Image and Video Editing", 2204.02491): a
generator trained on one picture, with nothing but CLIP to please, gives a layer of colour and opacity.

| module | what it is | in the paper |
|---|---|---|
| `config` | settings and presets | appendix A |
| `views` | the internal training set of one picture, and the views of it that CLIP looks at | 3.2 |
| `losses` | every loss as a formula | 3.1, equations 3 to 8 |
| `texts` | prompts, templates, and what is filled in where a person said less | 3.1 |
| `image` | the loop for a picture | 3 |
| `result` | the layer at the picture's own size, and laid over it | 3.1, equation 1 |
| `video` | the loop for an atlas of a video | 4 |

Where we differ, and why:

- AdamW is the optimiser, which torch has; the paper's is MADGRAD (Defazio and Jelassi 2021). MADGRAD divides
  by a cube root where Adam has a square root and averages gradients over the whole run instead of the last
  ten steps, so equal rates are not equal steps: Adam's first steps are as long as the rate whatever the
  gradient.
- Relevancy is found once for the picture and cut out with each view, instead of anew for each view.
- The views of the layer, of the input and of the layer over green go through CLIP in one batch.
- Where `paired` is on, the input is seen in the same views as the result, so their difference is the edit
  alone. The paper draws views independently.
- Shifts of hue turn colours about the axis of greys, and brightness, contrast, hue and saturation come in
  this order: every jitter is one matrix.
- A seed is a seed: all chance comes from generators made of it.
- The result has the picture's own size: the layer is brought to it along the picture's own edges.
- A person's mask bounds the layer: outside of it the opacity is 0.
- Where `styles_cover` is on, an edit of style has no region: it is neither sparse, nor bootstrapped, nor
  shown over green.
"""

from scumble.methods.text2live.config import PRESETS as PRESETS
from scumble.methods.text2live.config import Config as Config
