"""Published results of Ben-Cohen et al. (ICCV 2021), supplement: NUS-WIDE test set, in percent."""

COLUMNS = (
    ("zsl", "f1@3"),
    ("zsl", "f1@5"),
    ("zsl", "map"),
    ("gzsl", "f1@3"),
    ("gzsl", "f1@5"),
    ("gzsl", "map"),
)

# Table 1: backbone, method, and metrics in the order of COLUMNS.
TABLE_1 = (
    ("VGG19", "Fast0Tag", (24.2, 22.2, 20.2, 11.7, 13.0, 6.6)),
    ("TResNet-M", "Fast0Tag", (25.7, 23.3, 21.6, 15.4, 16.6, 9.7)),
    ("VGG19", "SDL", (29.0, 26.5, 24.2, 16.8, 19.0, 9.9)),
    ("ResNet50", "SDL", (30.0, 27.6, 24.4, 17.7, 20.1, 11.2)),
    ("TResNet-M", "SDL", (30.5, 27.8, 25.9, 18.5, 21.0, 12.1)),
)

# Semantic diversity over 10,000 validation photos: mean and standard deviation.
DIVERSITY = (0.53, 0.20)
