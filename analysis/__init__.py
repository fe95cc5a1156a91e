"""Reads what was recorded and turns it into pictures' data: numpy, pandas, scikit-learn; never torch, never streamlit."""
