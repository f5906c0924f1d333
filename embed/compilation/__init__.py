"""What a compiled step needs of a device: its program read, chips known by their data sheets, forecasts and advice."""
