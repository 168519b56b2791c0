//! What the people of `clips` are called, where they live and what they hold in their hands.
//!
//! Names are common ones of each country, put together at random, and those of well-known people are left
//! out. Telephone numbers come from ranges set aside for fiction where a country has one, else from numbers
//! that no operator gives out; addresses from ranges for documentation and benchmarks (RFC 5737, RFC 2544).
#![allow(
    clippy::inconsistent_digit_grouping,
    clippy::large_digit_groups,
    reason = "in a coordinate the underscore stands where the decimal point would"
)]

/// Where the law draws the line: friends are mostly found in one's own region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Us,
    Eu,
    Singapore,
    China,
}

/// A country and what its users have in common.
#[derive(Debug)]
pub(super) struct Country {
    /// ISO 3166-1 alpha-2.
    pub(super) code: &'static str,
    pub(super) region: Region,
    /// How many of 1,000 users live here.
    pub(super) permille: u32,
    pub(super) names: &'static [Names],
    pub(super) cities: &'static [City],
    pub(super) models: &'static [&'static str],
    /// The parts of 198.18.0.0/15 the country's addresses are in, as the second and the third octet, first
    /// and last.
    pub(super) net: (u32, u32, u32),
}

/// Names that go together.
#[derive(Debug)]
pub(super) struct Names {
    /// How many of 100 users of the country have such a name.
    pub(super) percent: u32,
    pub(super) family_first: bool,
    pub(super) given: &'static [&'static str],
    pub(super) family: &'static [&'static str],
}

/// A city, in hundred-thousandths of a degree, with a pattern for telephone numbers in which `#` is a digit.
/// A big city stands in the list several times.
#[derive(Debug)]
pub(super) struct City {
    pub(super) name: &'static str,
    pub(super) lat_e5: i32,
    pub(super) lon_e5: i32,
    pub(super) phone: &'static str,
}

const fn city(name: &'static str, lat_e5: i32, lon_e5: i32, phone: &'static str) -> City {
    City { name, lat_e5, lon_e5, phone }
}

const fn given_first(given: &'static [&'static str], family: &'static [&'static str]) -> [Names; 1] {
    [Names { percent: 100, family_first: false, given, family }]
}

const fn eu(
    code: &'static str,
    permille: u32,
    names: &'static [Names],
    cities: &'static [City],
    third_octet: (u32, u32),
) -> Country {
    let net = (19, third_octet.0, third_octet.1);
    Country { code, region: Region::Eu, permille, names, cities, models: MODELS_EU, net }
}

/// All countries; `permille` sums up to 1,000.
pub(super) static COUNTRIES: [Country; 10] = [
    Country {
        code: "US",
        region: Region::Us,
        permille: 450,
        names: &given_first(US_GIVEN, US_FAMILY),
        cities: US_CITIES,
        models: MODELS_US,
        net: (18, 0, 255),
    },
    eu("DE", 60, &given_first(DE_GIVEN, DE_FAMILY), DE_CITIES, (0, 23)),
    eu("FR", 50, &given_first(FR_GIVEN, FR_FAMILY), FR_CITIES, (24, 43)),
    eu("ES", 38, &given_first(ES_GIVEN, ES_FAMILY), ES_CITIES, (44, 58)),
    eu("IT", 38, &given_first(IT_GIVEN, IT_FAMILY), IT_CITIES, (59, 73)),
    eu("NL", 22, &given_first(NL_GIVEN, NL_FAMILY), NL_CITIES, (74, 82)),
    eu("PL", 30, &given_first(PL_GIVEN, PL_FAMILY), PL_CITIES, (83, 94)),
    eu("IE", 12, &given_first(IE_GIVEN, IE_FAMILY), IE_CITIES, (95, 99)),
    Country {
        code: "SG",
        region: Region::Singapore,
        permille: 120,
        names: &[
            Names { percent: 75, family_first: true, given: SG_GIVEN, family: SG_FAMILY },
            Names { percent: 15, family_first: false, given: MALAY_GIVEN, family: MALAY_FAMILY },
            Names { percent: 10, family_first: false, given: TAMIL_GIVEN, family: TAMIL_FAMILY },
        ],
        cities: SG_CITIES,
        models: MODELS_ASIA,
        net: (19, 100, 155),
    },
    Country {
        code: "CN",
        region: Region::China,
        permille: 180,
        names: &[Names { percent: 100, family_first: true, given: CN_GIVEN, family: CN_FAMILY }],
        cities: CN_CITIES,
        models: MODELS_CHINA,
        net: (19, 156, 255),
    },
];

/// Hosts for e-mail that can never be anybody's (RFC 2606, RFC 6761).
#[rustfmt::skip]
pub(super) static MAIL_HOSTS: &[&str] = &[
    "example.com", "example.org", "example.net", "mail.example", "inbox.example", "post.example",
    "students.example", "mail.example.com", "mail.example.net",
];

#[rustfmt::skip]
static US_GIVEN: &[&str] = &[
    "Aaliyah", "Abigail", "Aiden", "Alejandra", "Alexis", "Amara", "Amelia", "Andre", "Angela", "Anthony",
    "Ashley", "Ava", "Benjamin", "Brandon", "Brianna", "Caleb", "Camila", "Carlos", "Carmen", "Caroline",
    "Charlotte", "Chloe", "Daniel", "Danielle", "Darius", "Derek", "Destiny", "Diego", "Dominic", "Eleanor",
    "Elijah", "Emily", "Ethan", "Evelyn", "Gabriela", "Grace", "Hannah", "Harper", "Henry", "Imani",
    "Isaac", "Isabella", "Jada", "Jamal", "Jasmine", "Jenna", "Jordan", "Joshua", "Julian", "Kayla",
    "Kenji", "Kiara", "Lakshmi", "Landon", "Leah", "Liam", "Linh", "Lucia", "Madison", "Malik",
    "Maria", "Marcus", "Mateo", "Maya", "Megan", "Miguel", "Minh", "Naomi", "Natalie", "Nathan",
    "Noah", "Nora", "Olivia", "Owen", "Paige", "Priya", "Quinn", "Rachel", "Rafael", "Riley",
    "Rosa", "Ruby", "Samantha", "Samuel", "Savannah", "Sierra", "Sofia", "Stella", "Tiana", "Trevor",
    "Tyler", "Valeria", "Vanessa", "Victor", "Wesley", "Xavier", "Yasmin", "Zachary", "Zoe", "Zuri",
];

#[rustfmt::skip]
static US_FAMILY: &[&str] = &[
    "Acevedo", "Aguilar", "Alvarez", "Bailey", "Banks", "Barnes", "Begay", "Bennett", "Boyd", "Brooks",
    "Bui", "Burke", "Butler", "Cardenas", "Castillo", "Chavez", "Choi", "Coleman", "Cooper", "Crawford",
    "Dang", "Delgado", "Desai", "Diaz", "Dixon", "Douglas", "Dunn", "Eastman", "Ellis", "Espinoza",
    "Evans", "Fields", "Figueroa", "Fleming", "Flores", "Foster", "Garcia", "Gardner", "Gibson", "Gonzales",
    "Granger", "Greene", "Griffin", "Gupta", "Guzman", "Hamilton", "Harrington", "Hatfield", "Henderson", "Herrera",
    "Hoang", "Holloway", "Hughes", "Ibarra", "Ingram", "Jenkins", "Jimenez", "Kaplan", "Kelley", "Kim",
    "Lawson", "Le", "Lewandowski", "Lindgren", "Maldonado", "Marsh", "Martinez", "McBride", "Mendoza", "Meyer",
    "Montoya", "Murray", "Navarro", "Nguyen", "O'Brien", "Okafor", "Ortega", "Owens", "Park", "Patel",
    "Peters", "Pham", "Porter", "Price", "Ramirez", "Redmond", "Reyes", "Robinson", "Rosenberg", "Salazar",
    "Sanders", "Schultz", "Shaw", "Simmons", "Stewart", "Torres", "Tran", "Vasquez", "Walsh", "Whitaker",
];

/// NANP numbers with 555-0100 to 555-0199 are set aside for fiction.
static US_CITIES: &[City] = &[
    city("Albuquerque", 35_08449, -106_65042, "+1 505 555 01##"),
    city("Anchorage", 61_21806, -149_90028, "+1 907 555 01##"),
    city("Atlanta", 33_74900, -84_38798, "+1 404 555 01##"),
    city("Atlanta", 33_74900, -84_38798, "+1 678 555 01##"),
    city("Austin", 30_26715, -97_74306, "+1 512 555 01##"),
    city("Austin", 30_26715, -97_74306, "+1 737 555 01##"),
    city("Baltimore", 39_29038, -76_61219, "+1 410 555 01##"),
    city("Boise", 43_61502, -116_20231, "+1 208 555 01##"),
    city("Boston", 42_36008, -71_05888, "+1 617 555 01##"),
    city("Boston", 42_36008, -71_05888, "+1 857 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 347 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 718 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 929 555 01##"),
    city("Buffalo", 42_88645, -78_87837, "+1 716 555 01##"),
    city("Charlotte", 35_22709, -80_84313, "+1 704 555 01##"),
    city("Charlotte", 35_22709, -80_84313, "+1 980 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 312 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 773 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 872 555 01##"),
    city("Cleveland", 41_49932, -81_69436, "+1 216 555 01##"),
    city("Columbus", 39_96118, -82_99879, "+1 614 555 01##"),
    city("Dallas", 32_77667, -96_79699, "+1 214 555 01##"),
    city("Dallas", 32_77667, -96_79699, "+1 972 555 01##"),
    city("Denver", 39_73924, -104_99025, "+1 303 555 01##"),
    city("Denver", 39_73924, -104_99025, "+1 720 555 01##"),
    city("Detroit", 42_33143, -83_04575, "+1 313 555 01##"),
    city("El Paso", 31_76188, -106_48502, "+1 915 555 01##"),
    city("Fresno", 36_73780, -119_78713, "+1 559 555 01##"),
    city("Honolulu", 21_30694, -157_85833, "+1 808 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 281 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 713 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 832 555 01##"),
    city("Indianapolis", 39_76840, -86_15807, "+1 317 555 01##"),
    city("Jacksonville", 30_33218, -81_65565, "+1 904 555 01##"),
    city("Kansas City", 39_09973, -94_57857, "+1 816 555 01##"),
    city("Las Vegas", 36_16994, -115_13983, "+1 702 555 01##"),
    city("Las Vegas", 36_16994, -115_13983, "+1 725 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 213 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 310 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 323 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 818 555 01##"),
    city("Memphis", 35_14953, -90_04898, "+1 901 555 01##"),
    city("Miami", 25_76168, -80_19179, "+1 305 555 01##"),
    city("Miami", 25_76168, -80_19179, "+1 786 555 01##"),
    city("Milwaukee", 43_03890, -87_90647, "+1 414 555 01##"),
    city("Minneapolis", 44_97775, -93_26501, "+1 612 555 01##"),
    city("Nashville", 36_16266, -86_78160, "+1 615 555 01##"),
    city("New Orleans", 29_95107, -90_07153, "+1 504 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 212 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 332 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 646 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 917 555 01##"),
    city("Oakland", 37_80436, -122_27111, "+1 510 555 01##"),
    city("Omaha", 41_25654, -95_93450, "+1 402 555 01##"),
    city("Orlando", 28_53834, -81_37924, "+1 407 555 01##"),
    city("Philadelphia", 39_95258, -75_16522, "+1 215 555 01##"),
    city("Philadelphia", 39_95258, -75_16522, "+1 267 555 01##"),
    city("Phoenix", 33_44838, -112_07404, "+1 480 555 01##"),
    city("Phoenix", 33_44838, -112_07404, "+1 602 555 01##"),
    city("Pittsburgh", 40_44062, -79_99589, "+1 412 555 01##"),
    city("Portland", 45_52306, -122_67648, "+1 503 555 01##"),
    city("Raleigh", 35_77959, -78_63818, "+1 919 555 01##"),
    city("Sacramento", 38_58157, -121_49440, "+1 916 555 01##"),
    city("Salt Lake City", 40_76078, -111_89105, "+1 801 555 01##"),
    city("San Antonio", 29_42412, -98_49363, "+1 210 555 01##"),
    city("San Diego", 32_71574, -117_16108, "+1 619 555 01##"),
    city("San Diego", 32_71574, -117_16108, "+1 858 555 01##"),
    city("San Francisco", 37_77493, -122_41942, "+1 415 555 01##"),
    city("San Francisco", 37_77493, -122_41942, "+1 628 555 01##"),
    city("San Jose", 37_33821, -121_88633, "+1 408 555 01##"),
    city("Seattle", 47_60621, -122_33207, "+1 206 555 01##"),
    city("Seattle", 47_60621, -122_33207, "+1 425 555 01##"),
    city("St. Louis", 38_62700, -90_19940, "+1 314 555 01##"),
    city("Tampa", 27_95058, -82_45718, "+1 813 555 01##"),
    city("Tucson", 32_22261, -110_97471, "+1 520 555 01##"),
    city("Tulsa", 36_15398, -95_99277, "+1 918 555 01##"),
    city("Washington", 38_90719, -77_03687, "+1 202 555 01##"),
];

#[rustfmt::skip]
static DE_GIVEN: &[&str] = &[
    "Aylin", "Annika", "Ben", "Clara", "Emilia", "Emre", "Felix", "Finn", "Frieda", "Hannah",
    "Jannik", "Johanna", "Jonas", "Jörg", "Jürgen", "Katharina", "Lena", "Leonie", "Lukas", "Marie",
    "Mehmet", "Mia", "Moritz", "Nele", "Niklas", "Paula", "Sabine", "Sören", "Stefan", "Tobias",
];

#[rustfmt::skip]
static DE_FAMILY: &[&str] = &[
    "Albrecht", "Arslan", "Bauer", "Becker", "Böhm", "Brandt", "Demir", "Fischer", "Franke", "Groß",
    "Günther", "Hartmann", "Hoffmann", "Jäger", "Keller", "König", "Krüger", "Lange", "Lehmann", "Lorenz",
    "Meier", "Möller", "Neumann", "Peters", "Richter", "Roth", "Schäfer", "Schneider", "Vogel", "Yılmaz",
];

/// The Bundesnetzagentur lists numbers for film and television; these blocks of mobile ones are among them.
static DE_CITIES: &[City] = &[
    city("Berlin", 52_52001, 13_40495, "+49 171 39200##"),
    city("Berlin", 52_52001, 13_40495, "+49 176 040690##"),
    city("Cologne", 50_93753, 6_96028, "+49 176 040690##"),
    city("Dresden", 51_05041, 13_73726, "+49 171 39200##"),
    city("Frankfurt", 50_11092, 8_68213, "+49 176 040690##"),
    city("Hamburg", 53_55109, 9_99368, "+49 171 39200##"),
    city("Leipzig", 51_33970, 12_37307, "+49 176 040690##"),
    city("Munich", 48_13513, 11_58198, "+49 171 39200##"),
    city("Stuttgart", 48_77585, 9_18293, "+49 176 040690##"),
];

#[rustfmt::skip]
static FR_GIVEN: &[&str] = &[
    "Amandine", "Anaïs", "Antoine", "Aurélie", "Baptiste", "Camille", "Chloé", "Clément", "Élodie", "Émile",
    "Fatou", "Hugo", "Inès", "Jules", "Juliette", "Karim", "Léa", "Louise", "Maëlle", "Manon",
    "Mathis", "Maxime", "Nadia", "Océane", "Quentin", "Rayan", "Romane", "Sarah", "Théo", "Zoé",
];

#[rustfmt::skip]
static FR_FAMILY: &[&str] = &[
    "Aubert", "Barbier", "Benali", "Blanchard", "Bonnet", "Boucher", "Chevalier", "Colin", "Diallo", "Dufour",
    "Dupuis", "Fontaine", "Garnier", "Gauthier", "Girard", "Lambert", "Lefèvre", "Legrand", "Lemaire", "Marchand",
    "Mercier", "Moreau", "Noël", "Perrin", "Picard", "Renard", "Roussel", "Rivière", "Traoré", "Vasseur",
];

/// Arcep keeps 06 39 98 for fiction.
static FR_CITIES: &[City] = &[
    city("Bordeaux", 44_83779, -57918, "+33 6 39 98 ## ##"),
    city("Lille", 50_62925, 3_05726, "+33 6 39 98 ## ##"),
    city("Lyon", 45_76404, 4_83566, "+33 6 39 98 ## ##"),
    city("Marseille", 43_29648, 5_36978, "+33 6 39 98 ## ##"),
    city("Nantes", 47_21837, -1_55362, "+33 6 39 98 ## ##"),
    city("Nice", 43_71017, 7_26195, "+33 6 39 98 ## ##"),
    city("Paris", 48_85661, 2_35222, "+33 6 39 98 ## ##"),
    city("Paris", 48_85661, 2_35222, "+33 6 39 98 ## ##"),
    city("Strasbourg", 48_57341, 7_75211, "+33 6 39 98 ## ##"),
    city("Toulouse", 43_60465, 1_44421, "+33 6 39 98 ## ##"),
];

#[rustfmt::skip]
static ES_GIVEN: &[&str] = &[
    "Adrián", "Ainhoa", "Alba", "Álvaro", "Andrea", "Candela", "Carla", "Claudia", "Daniela", "David",
    "Elena", "Hugo", "Inés", "Irene", "Iván", "Javier", "Jimena", "Leire", "Lucía", "Manuel",
    "Marina", "Martín", "Mireia", "Noelia", "Nuria", "Rocío", "Rubén", "Sergio", "Unai", "Ximena",
];

#[rustfmt::skip]
static ES_FAMILY: &[&str] = &[
    "Aguirre", "Blanco", "Cabrera", "Calvo", "Cano", "Castro", "Crespo", "Domínguez", "Echeverría", "Ferrer",
    "Fuentes", "Gallego", "Garrido", "Gil", "Herrero", "Ibáñez", "Lozano", "Marín", "Medina", "Molina",
    "Muñoz", "Núñez", "Ortiz", "Pascual", "Peña", "Prieto", "Rubio", "Serrano", "Soler", "Vidal",
];

/// Spanish mobile numbers begin with 6 or with 71 to 74; 799 is nobody's.
static ES_CITIES: &[City] = &[
    city("Barcelona", 41_38506, 2_17340, "+34 799 ### ###"),
    city("Bilbao", 43_26301, -2_93499, "+34 799 ### ###"),
    city("Granada", 37_17734, -3_59856, "+34 799 ### ###"),
    city("Madrid", 40_41678, -3_70379, "+34 799 ### ###"),
    city("Madrid", 40_41678, -3_70379, "+34 799 ### ###"),
    city("Málaga", 36_72127, -4_42140, "+34 799 ### ###"),
    city("Sevilla", 37_38909, -5_98446, "+34 799 ### ###"),
    city("Valencia", 39_46991, -37629, "+34 799 ### ###"),
    city("Zaragoza", 41_64882, -88909, "+34 799 ### ###"),
];

#[rustfmt::skip]
static IT_GIVEN: &[&str] = &[
    "Alessia", "Alice", "Andrea", "Aurora", "Beatrice", "Chiara", "Davide", "Edoardo", "Elisa", "Federica",
    "Filippo", "Francesca", "Gabriele", "Giada", "Ginevra", "Giorgia", "Greta", "Ilaria", "Lorenzo", "Ludovica",
    "Martina", "Nicolò", "Noemi", "Pietro", "Riccardo", "Samuele", "Simone", "Tommaso", "Valentina", "Viola",
];

#[rustfmt::skip]
static IT_FAMILY: &[&str] = &[
    "Barbieri", "Bellini", "Bianchi", "Bruno", "Caruso", "Colombo", "Conti", "Costa", "D'Angelo", "De Luca",
    "Fabbri", "Ferrara", "Fontana", "Gallo", "Gentile", "Giordano", "Greco", "Leone", "Lombardi", "Mancini",
    "Marchetti", "Marini", "Martinelli", "Moretti", "Palumbo", "Pellegrini", "Ricci", "Rinaldi", "Sartori", "Testa",
];

/// Italian mobile numbers begin with 32 to 39; 30 is nobody's.
static IT_CITIES: &[City] = &[
    city("Bari", 41_11714, 16_87187, "+39 301 ### ####"),
    city("Bologna", 44_49489, 11_34262, "+39 301 ### ####"),
    city("Florence", 43_76956, 11_25581, "+39 301 ### ####"),
    city("Milan", 45_46420, 9_18998, "+39 301 ### ####"),
    city("Naples", 40_85180, 14_26812, "+39 301 ### ####"),
    city("Palermo", 38_11569, 13_36149, "+39 301 ### ####"),
    city("Rome", 41_90278, 12_49637, "+39 301 ### ####"),
    city("Rome", 41_90278, 12_49637, "+39 301 ### ####"),
    city("Turin", 45_07031, 7_68686, "+39 301 ### ####"),
];

#[rustfmt::skip]
static NL_GIVEN: &[&str] = &[
    "Anouk", "Bas", "Bram", "Daan", "Eline", "Esmee", "Fleur", "Floris", "Fenna", "Gijs",
    "Hidde", "Iris", "Jasper", "Jelle", "Jip", "Joost", "Lieke", "Lotte", "Maud", "Mees",
    "Merel", "Milan", "Noor", "Roos", "Sanne", "Sem", "Sjoerd", "Soufiane", "Tess", "Thijs",
];

#[rustfmt::skip]
static NL_FAMILY: &[&str] = &[
    "Bakker", "Blom", "Bosch", "Brouwer", "de Boer", "de Graaf", "de Groot", "de Vries", "Dekker", "Dijkstra",
    "El Amrani", "Hendriks", "Hoekstra", "Huisman", "Jacobs", "Kok", "Koster", "Kuipers", "Maas", "Mulder",
    "Peeters", "Postma", "Prins", "Schouten", "Smits", "van Dam", "van den Berg", "van Leeuwen", "Veenstra", "Willems",
];

/// Dutch mobile numbers begin with 61 to 65 or 68; 690 is nobody's.
static NL_CITIES: &[City] = &[
    city("Amsterdam", 52_36757, 4_90414, "+31 6 90######"),
    city("Amsterdam", 52_36757, 4_90414, "+31 6 90######"),
    city("Eindhoven", 51_44164, 5_46972, "+31 6 90######"),
    city("Groningen", 53_21938, 6_56650, "+31 6 90######"),
    city("Rotterdam", 51_92442, 4_47773, "+31 6 90######"),
    city("The Hague", 52_07050, 4_30070, "+31 6 90######"),
    city("Utrecht", 52_09074, 5_12142, "+31 6 90######"),
];

#[rustfmt::skip]
static PL_GIVEN: &[&str] = &[
    "Agnieszka", "Aleksandra", "Antoni", "Bartosz", "Dominika", "Filip", "Gabriela", "Hanna", "Igor", "Jakub",
    "Julia", "Kacper", "Kamil", "Karolina", "Kinga", "Łucja", "Łukasz", "Magdalena", "Maja", "Małgorzata",
    "Michał", "Mikołaj", "Natalia", "Oliwia", "Paweł", "Stanisław", "Szymon", "Weronika", "Zofia", "Zuzanna",
];

/// Family names that are the same for women and men.
#[rustfmt::skip]
static PL_FAMILY: &[&str] = &[
    "Adamczyk", "Baran", "Cieślak", "Czarnota", "Duda", "Dudek", "Gajda", "Góra", "Jaworek", "Kaczmarek",
    "Kasprzak", "Kołodziej", "Kowalczyk", "Krawczyk", "Król", "Kubiak", "Kurek", "Marciniak", "Mazur", "Mazurek",
    "Nowak", "Pawlak", "Pietrzak", "Sikora", "Stępień", "Szymczak", "Walczak", "Wieczorek", "Wójcik", "Wrona",
];

/// Polish numbers beginning with 49 are nobody's.
static PL_CITIES: &[City] = &[
    city("Gdańsk", 54_35203, 18_64664, "+48 49# ### ###"),
    city("Katowice", 50_26489, 19_02378, "+48 49# ### ###"),
    city("Kraków", 50_06465, 19_94498, "+48 49# ### ###"),
    city("Łódź", 51_75925, 19_45598, "+48 49# ### ###"),
    city("Poznań", 52_40637, 16_92517, "+48 49# ### ###"),
    city("Warsaw", 52_22968, 21_01223, "+48 49# ### ###"),
    city("Warsaw", 52_22968, 21_01223, "+48 49# ### ###"),
    city("Wrocław", 51_10789, 17_03854, "+48 49# ### ###"),
];

#[rustfmt::skip]
static IE_GIVEN: &[&str] = &[
    "Aisling", "Aoife", "Caoimhe", "Cian", "Ciara", "Cillian", "Clodagh", "Conor", "Darragh", "Deirdre",
    "Eimear", "Eoin", "Fiadh", "Fionn", "Gráinne", "Donal", "Laoise", "Máire", "Niamh", "Oisín",
    "Orla", "Pádraig", "Róisín", "Ronan", "Ruairí", "Sadhbh", "Séamus", "Shauna", "Siobhán", "Tadhg",
];

#[rustfmt::skip]
static IE_FAMILY: &[&str] = &[
    "Brennan", "Byrne", "Cullen", "Daly", "Doherty", "Doyle", "Duffy", "Dunne", "Egan", "Fitzgerald",
    "Flanagan", "Flynn", "Foley", "Gallagher", "Hennessy", "Hogan", "Kavanagh", "Keane", "Kearney", "Lynch",
    "Maguire", "McCarthy", "Moran", "Nolan", "O'Connell", "O'Donnell", "O'Reilly", "O'Shea", "Quinlan", "Whelan",
];

/// ComReg keeps 020 91 for drama.
static IE_CITIES: &[City] = &[
    city("Cork", 51_89689, -8_48632, "+353 20 91# ####"),
    city("Dublin", 53_34981, -6_26031, "+353 20 91# ####"),
    city("Dublin", 53_34981, -6_26031, "+353 20 91# ####"),
    city("Galway", 53_27067, -9_05679, "+353 20 91# ####"),
    city("Limerick", 52_66386, -8_62677, "+353 20 91# ####"),
    city("Waterford", 52_25932, -7_11007, "+353 20 91# ####"),
];

#[rustfmt::skip]
static SG_GIVEN: &[&str] = &[
    "Bao Xuan", "Boon Kiat", "Chee Keong", "Choon Hui", "Hui Min", "Hui Shan", "Jia Hao", "Jia Hui", "Jia Wen", "Jing Yi",
    "Jun Jie", "Jun Kai", "Kah Wai", "Kai Xin", "Kok Wei", "Li Ting", "Mei Fang", "Mei Xuan", "Pei Shan", "Poh Ling",
    "Rui En", "Shi Hui", "Shu Fen", "Siew Ling", "Swee Hock", "Wei Jie", "Wei Ling", "Wen Hao", "Xin Yi", "Xiu Ling",
    "Yi Xuan", "Ying Hui", "Yong Sheng", "Yu Han", "Yun Xi", "Zhi Hao", "Zhi Xuan", "Zi Yang",
];

#[rustfmt::skip]
static SG_FAMILY: &[&str] = &[
    "Ang", "Chan", "Cheng", "Cheong", "Chia", "Chong", "Chua", "Foo", "Goh", "Heng",
    "Ho", "Khoo", "Koh", "Kwek", "Lai", "Lau", "Leong", "Liew", "Lim", "Loh",
    "Low", "Neo", "Ng", "Ong", "Peh", "Poh", "Quek", "Seah", "Sim", "Soh",
    "Tan", "Tay", "Teo", "Toh", "Wee", "Yap", "Yeo", "Yong",
];

#[rustfmt::skip]
static MALAY_GIVEN: &[&str] = &[
    "Adam", "Aisyah", "Amirah", "Danial", "Farah", "Faizal", "Hafiz", "Hakim", "Iman", "Irfan",
    "Izzati", "Khairul", "Liyana", "Nabilah", "Nur Ain", "Nurul", "Rizwan", "Shahirah", "Syafiq", "Zulaikha",
];

#[rustfmt::skip]
static MALAY_FAMILY: &[&str] = &[
    "Abdullah", "Ahmad", "Bakar", "Hamid", "Hassan", "Ibrahim", "Ismail", "Jamal", "Kassim", "Latiff",
    "Mansor", "Osman", "Rahim", "Rashid", "Salleh", "Samad", "Sulaiman", "Yusof", "Zainal", "Zakaria",
];

#[rustfmt::skip]
static TAMIL_GIVEN: &[&str] = &[
    "Aravind", "Anjali", "Deepa", "Dinesh", "Divya", "Harini", "Karthik", "Kavitha", "Lavanya", "Meena",
    "Naveen", "Nisha", "Pravin", "Ravi", "Revathi", "Sanjay", "Shalini", "Suresh", "Vikram", "Yamini",
];

#[rustfmt::skip]
static TAMIL_FAMILY: &[&str] = &[
    "Balakrishnan", "Chandran", "Devan", "Ganesan", "Gopal", "Krishnan", "Kumar", "Maniam", "Menon", "Muthu",
    "Nair", "Pillai", "Raja", "Rajan", "Ramasamy", "Raman", "Selvam", "Subramaniam", "Suppiah", "Velu",
];

/// Singapore's 999 is the police, so no subscriber has a number that begins with it.
static SG_CITIES: &[City] = &[
    city("Ang Mo Kio", 1_36908, 103_84543, "+65 999# ####"),
    city("Bedok", 1_32361, 103_92728, "+65 999# ####"),
    city("Bishan", 1_35085, 103_84826, "+65 999# ####"),
    city("Bukit Timah", 1_32940, 103_80207, "+65 999# ####"),
    city("Clementi", 1_31514, 103_76527, "+65 999# ####"),
    city("Hougang", 1_36123, 103_88624, "+65 999# ####"),
    city("Jurong East", 1_33318, 103_74225, "+65 999# ####"),
    city("Queenstown", 1_29417, 103_78613, "+65 999# ####"),
    city("Sengkang", 1_39157, 103_89545, "+65 999# ####"),
    city("Tampines", 1_35313, 103_94519, "+65 999# ####"),
    city("Toa Payoh", 1_33432, 103_85630, "+65 999# ####"),
    city("Yishun", 1_42938, 103_83503, "+65 999# ####"),
];

#[rustfmt::skip]
static CN_GIVEN: &[&str] = &[
    "Bingbin", "Chenxi", "Fangyu", "Guoliang", "Haoran", "Haoyu", "Hongmei", "Jiahao", "Jialin", "Jianing",
    "Jiaqi", "Jingwen", "Jinhai", "Junhao", "Kexin", "Lihua", "Mengyao", "Mingxuan", "Muchen", "Peiling",
    "Qingyun", "Ruoxi", "Ruihan", "Shaohua", "Shihan", "Shuang", "Siyuan", "Tianyu", "Weimin", "Wenbo",
    "Xiaodan", "Xiaohui", "Xinyi", "Xueying", "Yanling", "Yichen", "Yilin", "Yingjie", "Yuchen", "Yutong",
    "Yuxuan", "Zhenhua", "Zhihao", "Zihan", "Zixuan",
];

#[rustfmt::skip]
static CN_FAMILY: &[&str] = &[
    "Bai", "Cai", "Cao", "Chen", "Cheng", "Deng", "Ding", "Dong", "Du", "Fan",
    "Feng", "Gao", "Guo", "Han", "He", "Hu", "Huang", "Jiang", "Jin", "Li",
    "Liang", "Lin", "Liu", "Lu", "Luo", "Ma", "Pan", "Peng", "Qian", "Shen",
    "Shi", "Song", "Su", "Sun", "Tang", "Tian", "Wang", "Wu", "Xiao", "Xie",
    "Xu", "Yan", "Yang", "Ye", "Yu", "Yuan", "Zeng", "Zhang", "Zhao", "Zheng",
    "Zhou", "Zhu",
];

/// Chinese mobile numbers begin with 13 to 19; 12 is nobody's.
static CN_CITIES: &[City] = &[
    city("Beijing", 39_90420, 116_40740, "+86 120 #### ####"),
    city("Beijing", 39_90420, 116_40740, "+86 120 #### ####"),
    city("Changsha", 28_22821, 112_93881, "+86 120 #### ####"),
    city("Chengdu", 30_57282, 104_06680, "+86 120 #### ####"),
    city("Chongqing", 29_56301, 106_55156, "+86 120 #### ####"),
    city("Guangzhou", 23_12911, 113_26439, "+86 120 #### ####"),
    city("Hangzhou", 30_27408, 120_15507, "+86 120 #### ####"),
    city("Nanjing", 32_06025, 118_79688, "+86 120 #### ####"),
    city("Qingdao", 36_06711, 120_38261, "+86 120 #### ####"),
    city("Shanghai", 31_23039, 121_47370, "+86 120 #### ####"),
    city("Shanghai", 31_23039, 121_47370, "+86 120 #### ####"),
    city("Shenzhen", 22_54310, 114_05787, "+86 120 #### ####"),
    city("Wuhan", 30_59276, 114_30525, "+86 120 #### ####"),
    city("Xi'an", 34_34157, 108_93977, "+86 120 #### ####"),
];

#[rustfmt::skip]
static MODELS_US: &[&str] = &[
    "iPhone 12", "iPhone 13", "iPhone 13 mini", "iPhone 14", "iPhone 14 Pro", "iPhone 15", "iPhone 15 Pro",
    "iPhone 16", "iPhone 16 Pro Max", "iPhone SE", "iPad Air", "iPad mini", "Galaxy A15", "Galaxy A54",
    "Galaxy S22", "Galaxy S23", "Galaxy S24 Ultra", "Galaxy Z Flip5", "Pixel 7a", "Pixel 8", "Pixel 9 Pro",
    "moto g power", "moto g stylus", "OnePlus 12",
];

#[rustfmt::skip]
static MODELS_EU: &[&str] = &[
    "iPhone 12", "iPhone 13", "iPhone 14", "iPhone 15", "iPhone 16", "iPhone SE", "iPad Air", "Galaxy A14",
    "Galaxy A34", "Galaxy A54", "Galaxy S22", "Galaxy S23", "Galaxy S24", "Galaxy Tab A9", "Pixel 7a",
    "Pixel 8", "Redmi Note 12", "Redmi Note 13", "Xiaomi 13T", "Fairphone 5", "Nothing Phone (2)", "Nokia G42",
];

#[rustfmt::skip]
static MODELS_ASIA: &[&str] = &[
    "iPhone 13", "iPhone 14 Pro", "iPhone 15", "iPhone 15 Pro Max", "iPhone 16 Pro", "iPad mini", "Galaxy A55",
    "Galaxy S23", "Galaxy S24 Ultra", "Galaxy Z Fold5", "OPPO Find X7", "OPPO Reno11", "Redmi Note 13",
    "Xiaomi 14", "vivo V30", "Pixel 8",
];

#[rustfmt::skip]
static MODELS_CHINA: &[&str] = &[
    "HUAWEI Mate 60 Pro", "HUAWEI P60", "HUAWEI nova 12", "HONOR 90", "HONOR Magic6", "Xiaomi 13", "Xiaomi 14",
    "Redmi K70", "Redmi Note 13", "OPPO Find X7", "OPPO Reno11", "vivo X100", "vivo S18", "iQOO 12",
    "OnePlus 12", "iPhone 13", "iPhone 14", "iPhone 15 Pro", "iPad Air",
];
