# SPDX-License-Identifier: Apache-2.0
"""Train the digits network of examples/digits and write everything that folder holds.

    pip install '.[train,test]' && python scripts/train_digits.py

The data are scikit-learn's digits: 1797 real handwritten digits of 8x8 pixels with 17 grey levels. A fifth
of them, the test split, is seen neither in training nor in calibration. Writes

- digits.tflite: fully int8, input (1, 8, 8, 1) of scale 1/255 and zero point -128 (a picture's 8-bit pixel
  minus 128), output (1, 10) probabilities;
- `<digit>_<letter>.png`: two pictures of each class, drawn at random from the test split, 8-bit grey;
- test.npz: `inputs` int8 (n, 8, 8, 1) and `labels` uint8 (n,) of the whole test split, and `expected` int8
  (n, 10): what tflite-micro's kernels answer, the reference the NPU reproduces;
- README.md: what was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tflite_micro.python.tflite_micro import runtime

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "digits"
SEED = 7
TEST_SHARE = 0.2
EPOCHS = 80  # this, the rates and the layers were chosen by cross-validation inside the training split
BATCH = 32
LEARNING_RATE = 3e-3
CALIBRATION_PICTURES = 300
LETTERS = "ab"

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


def load_split() -> tuple[Pixels, Pixels, Labels, Labels]:
    """Training and test pixels, uint8 (n, 8, 8, 1), then their labels."""
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., np.newaxis]
    split: list[Any] = train_test_split(
        pixels,
        digits.target.astype(np.uint8),
        test_size=TEST_SHARE,
        stratify=digits.target,
        random_state=SEED,
    )
    return split[0], split[1], split[2], split[3]


def build() -> Any:
    """A small network with each kind of layer the NPU has: convolution, depthwise, pooling, FC, softmax."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 1), batch_size=1),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train(pixels: Pixels, labels: Labels) -> Any:
    """Train on shifted, turned and stretched copies: so few pictures are learnt by heart otherwise."""
    # Trained without a fixed batch; the weights then move to the batch of one that is deployed.
    deployed = build()
    layers = tf.keras.layers
    entry = tf.keras.Input((8, 8, 1))
    bent = layers.RandomTranslation(0.06, 0.06, fill_mode="constant")(entry)
    bent = layers.RandomRotation(0.02, fill_mode="constant")(bent)
    bent = layers.RandomZoom(0.05, 0.05, fill_mode="constant")(bent)
    body = tf.keras.models.clone_model(deployed, input_tensors=tf.keras.Input((8, 8, 1)))
    body.set_weights(deployed.get_weights())
    trainee = tf.keras.Model(entry, body(bent))
    steps = EPOCHS * len(pixels) // BATCH
    rate = tf.keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    trainee.compile(tf.keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    trainee.fit(pixels.astype(np.float32) / 255, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    deployed.set_weights(body.get_weights())
    return deployed


def quantise(model: Any, calibration: Pixels) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [picture[np.newaxis].astype(np.float32) / 255] for picture in calibration
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def reference_outputs(content: bytes, inputs: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 18)
    outputs = []
    for picture in inputs:
        interpreter.set_input(picture[np.newaxis], 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0)[0].copy())
    return np.array(outputs, np.int8)


def check_input_quantisation(content: bytes) -> None:
    details = tf.lite.Interpreter(model_content=content).get_input_details()[0]
    scale, zero_point = details["quantization"]
    if zero_point != -128 or abs(scale * 255 - 1) > 1e-6:
        raise SystemExit(
            f"the input came out as scale {scale}, zero point {zero_point}: pixel - 128 would not fit it"
        )


def write_pictures(pixels: Pixels, labels: Labels) -> None:
    draw = np.random.default_rng(SEED)
    for digit in range(10):
        chosen = draw.choice(np.flatnonzero(labels == digit), len(LETTERS), replace=False)
        for letter, index in zip(LETTERS, chosen, strict=True):
            Image.fromarray(pixels[index, :, :, 0]).save(FOLDER / f"{digit}_{letter}.png")


def main() -> None:
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    train_pixels, test_pixels, train_labels, test_labels = load_split()
    model = train(train_pixels, train_labels)
    content = quantise(model, train_pixels[:CALIBRATION_PICTURES])
    check_input_quantisation(content)

    inputs = (test_pixels.astype(np.int16) - 128).astype(np.int8)
    expected = reference_outputs(content, inputs)
    floats = model.predict(test_pixels.astype(np.float32) / 255, batch_size=1, verbose=0)
    total = len(test_labels)
    right = int((expected.argmax(axis=1) == test_labels).sum())
    float_right = int((floats.argmax(axis=1) == test_labels).sum())

    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "digits.tflite").write_bytes(content)
    np.savez_compressed(FOLDER / "test.npz", inputs=inputs, labels=test_labels, expected=expected)
    write_pictures(test_pixels, test_labels)
    (FOLDER / "README.md").write_text(
        "# The digits network\n\n"
        "Made by `scripts/train_digits.py`; see its first lines for what each file is.\n\n"
        f"Measured on the {total} pictures of the test split, which neither training nor calibration saw:\n"
        f"int8 {right} right ({right / total:.1%}), float {float_right} right ({float_right / total:.1%}). "
        f"{len(content)} bytes, {model.count_params()} parameters; TensorFlow {tf.__version__}.\n\n"
        "The pictures are from scikit-learn's copy of the UCI ML hand-written digits data set: see NOTICE.\n"
    )
    print(f"{FOLDER}: int8 {right}/{total}, float {float_right}/{total}, {len(content)} bytes")


if __name__ == "__main__":
    main()
