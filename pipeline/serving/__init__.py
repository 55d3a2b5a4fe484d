"""From trained models to answers: predict, explain, export."""
