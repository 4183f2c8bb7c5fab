"""From a trained model to a verified, served SavedModel."""
