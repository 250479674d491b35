"""Pure: where things stand on the screen. Colours are the terminal's own."""

from __future__ import annotations

from typing import Final

CSS: Final = """
Screen { background: ansi_default; color: ansi_default; layers: base over; }
Static { text-wrap: nowrap; text-overflow: ellipsis; }
#node, #host, #trouble { height: 1; width: 100%; }
Keys { width: 100%; height: auto; min-height: 1; max-height: 6; text-wrap: wrap; }
.title { height: 1; width: 100%; }
.tab { width: auto; padding-right: 3; height: 1; }
#order { width: 1fr; height: 1; }
Grid {
    background: ansi_default;
    height: 1fr;
    scrollbar-size-vertical: 1;
    scrollbar-size-horizontal: 0;
    scrollbar-color: ansi_bright_black;
    scrollbar-background: ansi_default;
}
#devices { height: 4; }
#filter { height: 1; border: none; padding: 0; background: ansi_default; color: ansi_default; }
#closely { height: 1fr; background: ansi_default; scrollbar-size-vertical: 1; }
#closely.shares { height: auto; max-height: 62%; }
#noun { width: 100%; height: auto; }
#output {
    height: 1fr;
    border-top: solid ansi_bright_black;
    background: ansi_default;
    scrollbar-size-vertical: 1;
    scrollbar-size-horizontal: 0;
}
ModalScreen { align: center middle; background: transparent; }
.dialog {
    width: auto;
    height: auto;
    max-height: 100%;
    scrollbar-size-vertical: 1;
    padding: 0 2;
    border: round ansi_bright_black;
    background: ansi_default;
}
.dialog Static { width: auto; height: auto; }
.buttons { height: 1; width: auto; margin-top: 1; }
.buttons Button { height: 1; border: none; margin-right: 2; min-width: 9; }
.buttons Button:focus { text-style: reverse; }
"""
