//! What the people of `clips` are called and what they hold in their hands, by country.
//!
//! Names are common ones of each country, put together at random, and those of well-known people
//! are left out. Mail hosts and networks are ones that can never be anybody's.

use super::places::{
    CN_CITIES, City, DE_CITIES, ES_CITIES, FR_CITIES, IE_CITIES, IT_CITIES, NL_CITIES, PL_CITIES, SG_CITIES,
    US_CITIES,
};

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
    /// The part of 198.18.0.0/15 (benchmarks, RFC 2544) that the country's addresses are in: the
    /// second octet, then the first and the last third octet.
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
    "Aaliyah", "Abigail", "Aiden", "Alejandra", "Alexis", "Amara", "Amelia", "Andre", "Angela",
    "Anthony", "Ashley", "Ava", "Benjamin", "Brandon", "Brianna", "Caleb", "Camila", "Carlos",
    "Carmen", "Caroline", "Charlotte", "Chloe", "Daniel", "Danielle", "Darius", "Derek", "Destiny",
    "Diego", "Dominic", "Eleanor", "Elijah", "Emily", "Ethan", "Evelyn", "Gabriela", "Grace",
    "Hannah", "Harper", "Henry", "Imani", "Isaac", "Isabella", "Jada", "Jamal", "Jasmine", "Jenna",
    "Jordan", "Joshua", "Julian", "Kayla", "Kenji", "Kiara", "Lakshmi", "Landon", "Leah", "Liam",
    "Linh", "Lucia", "Madison", "Malik", "Maria", "Marcus", "Mateo", "Maya", "Megan", "Miguel",
    "Minh", "Naomi", "Natalie", "Nathan", "Noah", "Nora", "Olivia", "Owen", "Paige", "Priya",
    "Quinn", "Rachel", "Rafael", "Riley", "Rosa", "Ruby", "Samantha", "Samuel", "Savannah",
    "Sierra", "Sofia", "Stella", "Tiana", "Trevor", "Tyler", "Valeria", "Vanessa", "Victor",
    "Wesley", "Xavier", "Yasmin", "Zachary", "Zoe", "Zuri",
];

#[rustfmt::skip]
static US_FAMILY: &[&str] = &[
    "Acevedo", "Aguilar", "Alvarez", "Bailey", "Banks", "Barnes", "Begay", "Bennett", "Boyd",
    "Brooks", "Bui", "Burke", "Butler", "Cardenas", "Castillo", "Chavez", "Choi", "Coleman",
    "Cooper", "Crawford", "Dang", "Delgado", "Desai", "Diaz", "Dixon", "Douglas", "Dunn", "Eastman",
    "Ellis", "Espinoza", "Evans", "Fields", "Figueroa", "Fleming", "Flores", "Foster", "Garcia",
    "Gardner", "Gibson", "Gonzales", "Granger", "Greene", "Griffin", "Gupta", "Guzman", "Hamilton",
    "Harrington", "Hatfield", "Henderson", "Herrera", "Hoang", "Holloway", "Hughes", "Ibarra",
    "Ingram", "Jenkins", "Jimenez", "Kaplan", "Kelley", "Kim", "Lawson", "Le", "Lewandowski",
    "Lindgren", "Maldonado", "Marsh", "Martinez", "McBride", "Mendoza", "Meyer", "Montoya",
    "Murray", "Navarro", "Nguyen", "O'Brien", "Okafor", "Ortega", "Owens", "Park", "Patel",
    "Peters", "Pham", "Porter", "Price", "Ramirez", "Redmond", "Reyes", "Robinson", "Rosenberg",
    "Salazar", "Sanders", "Schultz", "Shaw", "Simmons", "Stewart", "Torres", "Tran", "Vasquez",
    "Walsh", "Whitaker",
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
    "Günther", "Hartmann", "Hoffmann", "Jäger", "Keller", "König", "Krüger", "Lange", "Lehmann",
    "Lorenz", "Meier", "Möller", "Neumann", "Peters", "Richter", "Roth", "Schäfer", "Schneider",
    "Vogel", "Yılmaz",
];

#[rustfmt::skip]
static FR_GIVEN: &[&str] = &[
    "Amandine", "Anaïs", "Antoine", "Aurélie", "Baptiste", "Camille", "Chloé", "Clément", "Élodie",
    "Émile", "Fatou", "Hugo", "Inès", "Jules", "Juliette", "Karim", "Léa", "Louise", "Maëlle",
    "Manon", "Mathis", "Maxime", "Nadia", "Océane", "Quentin", "Rayan", "Romane", "Sarah", "Théo",
    "Zoé",
];

#[rustfmt::skip]
static FR_FAMILY: &[&str] = &[
    "Aubert", "Barbier", "Benali", "Blanchard", "Bonnet", "Boucher", "Chevalier", "Colin", "Diallo",
    "Dufour", "Dupuis", "Fontaine", "Garnier", "Gauthier", "Girard", "Lambert", "Lefèvre",
    "Legrand", "Lemaire", "Marchand", "Mercier", "Moreau", "Noël", "Perrin", "Picard", "Renard",
    "Roussel", "Rivière", "Traoré", "Vasseur",
];

#[rustfmt::skip]
static ES_GIVEN: &[&str] = &[
    "Adrián", "Ainhoa", "Alba", "Álvaro", "Andrea", "Candela", "Carla", "Claudia", "Daniela",
    "David", "Elena", "Hugo", "Inés", "Irene", "Iván", "Javier", "Jimena", "Leire", "Lucía",
    "Manuel", "Marina", "Martín", "Mireia", "Noelia", "Nuria", "Rocío", "Rubén", "Sergio", "Unai",
    "Ximena",
];

#[rustfmt::skip]
static ES_FAMILY: &[&str] = &[
    "Aguirre", "Blanco", "Cabrera", "Calvo", "Cano", "Castro", "Crespo", "Domínguez", "Echeverría",
    "Ferrer", "Fuentes", "Gallego", "Garrido", "Gil", "Herrero", "Ibáñez", "Lozano", "Marín",
    "Medina", "Molina", "Muñoz", "Núñez", "Ortiz", "Pascual", "Peña", "Prieto", "Rubio", "Serrano",
    "Soler", "Vidal",
];

#[rustfmt::skip]
static IT_GIVEN: &[&str] = &[
    "Alessia", "Alice", "Andrea", "Aurora", "Beatrice", "Chiara", "Davide", "Edoardo", "Elisa",
    "Federica", "Filippo", "Francesca", "Gabriele", "Giada", "Ginevra", "Giorgia", "Greta",
    "Ilaria", "Lorenzo", "Ludovica", "Martina", "Nicolò", "Noemi", "Pietro", "Riccardo", "Samuele",
    "Simone", "Tommaso", "Valentina", "Viola",
];

#[rustfmt::skip]
static IT_FAMILY: &[&str] = &[
    "Barbieri", "Bellini", "Bianchi", "Bruno", "Caruso", "Colombo", "Conti", "Costa", "D'Angelo",
    "De Luca", "Fabbri", "Ferrara", "Fontana", "Gallo", "Gentile", "Giordano", "Greco", "Leone",
    "Lombardi", "Mancini", "Marchetti", "Marini", "Martinelli", "Moretti", "Palumbo", "Pellegrini",
    "Ricci", "Rinaldi", "Sartori", "Testa",
];

#[rustfmt::skip]
static NL_GIVEN: &[&str] = &[
    "Anouk", "Bas", "Bram", "Daan", "Eline", "Esmee", "Fleur", "Floris", "Fenna", "Gijs", "Hidde",
    "Iris", "Jasper", "Jelle", "Jip", "Joost", "Lieke", "Lotte", "Maud", "Mees", "Merel", "Milan",
    "Noor", "Roos", "Sanne", "Sem", "Sjoerd", "Soufiane", "Tess", "Thijs",
];

#[rustfmt::skip]
static NL_FAMILY: &[&str] = &[
    "Bakker", "Blom", "Bosch", "Brouwer", "de Boer", "de Graaf", "de Groot", "de Vries", "Dekker",
    "Dijkstra", "El Amrani", "Hendriks", "Hoekstra", "Huisman", "Jacobs", "Kok", "Koster",
    "Kuipers", "Maas", "Mulder", "Peeters", "Postma", "Prins", "Schouten", "Smits", "van Dam",
    "van den Berg", "van Leeuwen", "Veenstra", "Willems",
];

#[rustfmt::skip]
static PL_GIVEN: &[&str] = &[
    "Agnieszka", "Aleksandra", "Antoni", "Bartosz", "Dominika", "Filip", "Gabriela", "Hanna",
    "Igor", "Jakub", "Julia", "Kacper", "Kamil", "Karolina", "Kinga", "Łucja", "Łukasz",
    "Magdalena", "Maja", "Małgorzata", "Michał", "Mikołaj", "Natalia", "Oliwia", "Paweł",
    "Stanisław", "Szymon", "Weronika", "Zofia", "Zuzanna",
];

/// Family names that are the same for women and men.
#[rustfmt::skip]
static PL_FAMILY: &[&str] = &[
    "Adamczyk", "Baran", "Cieślak", "Czarnota", "Duda", "Dudek", "Gajda", "Góra", "Jaworek",
    "Kaczmarek", "Kasprzak", "Kołodziej", "Kowalczyk", "Krawczyk", "Król", "Kubiak", "Kurek",
    "Marciniak", "Mazur", "Mazurek", "Nowak", "Pawlak", "Pietrzak", "Sikora", "Stępień", "Szymczak",
    "Walczak", "Wieczorek", "Wójcik", "Wrona",
];

#[rustfmt::skip]
static IE_GIVEN: &[&str] = &[
    "Aisling", "Aoife", "Caoimhe", "Cian", "Ciara", "Cillian", "Clodagh", "Conor", "Darragh",
    "Deirdre", "Eimear", "Eoin", "Fiadh", "Fionn", "Gráinne", "Donal", "Laoise", "Máire", "Niamh",
    "Oisín", "Orla", "Pádraig", "Róisín", "Ronan", "Ruairí", "Sadhbh", "Séamus", "Shauna",
    "Siobhán", "Tadhg",
];

#[rustfmt::skip]
static IE_FAMILY: &[&str] = &[
    "Brennan", "Byrne", "Cullen", "Daly", "Doherty", "Doyle", "Duffy", "Dunne", "Egan",
    "Fitzgerald", "Flanagan", "Flynn", "Foley", "Gallagher", "Hennessy", "Hogan", "Kavanagh",
    "Keane", "Kearney", "Lynch", "Maguire", "McCarthy", "Moran", "Nolan", "O'Connell", "O'Donnell",
    "O'Reilly", "O'Shea", "Quinlan", "Whelan",
];

#[rustfmt::skip]
static SG_GIVEN: &[&str] = &[
    "Bao Xuan", "Boon Kiat", "Chee Keong", "Choon Hui", "Hui Min", "Hui Shan", "Jia Hao", "Jia Hui",
    "Jia Wen", "Jing Yi", "Jun Jie", "Jun Kai", "Kah Wai", "Kai Xin", "Kok Wei", "Li Ting",
    "Mei Fang", "Mei Xuan", "Pei Shan", "Poh Ling", "Rui En", "Shi Hui", "Shu Fen", "Siew Ling",
    "Swee Hock", "Wei Jie", "Wei Ling", "Wen Hao", "Xin Yi", "Xiu Ling", "Yi Xuan", "Ying Hui",
    "Yong Sheng", "Yu Han", "Yun Xi", "Zhi Hao", "Zhi Xuan", "Zi Yang",
];

#[rustfmt::skip]
static SG_FAMILY: &[&str] = &[
    "Ang", "Chan", "Cheng", "Cheong", "Chia", "Chong", "Chua", "Foo", "Goh", "Heng", "Ho", "Khoo",
    "Koh", "Kwek", "Lai", "Lau", "Leong", "Liew", "Lim", "Loh", "Low", "Neo", "Ng", "Ong", "Peh",
    "Poh", "Quek", "Seah", "Sim", "Soh", "Tan", "Tay", "Teo", "Toh", "Wee", "Yap", "Yeo", "Yong",
];

#[rustfmt::skip]
static MALAY_GIVEN: &[&str] = &[
    "Adam", "Aisyah", "Amirah", "Danial", "Farah", "Faizal", "Hafiz", "Hakim", "Iman", "Irfan",
    "Izzati", "Khairul", "Liyana", "Nabilah", "Nur Ain", "Nurul", "Rizwan", "Shahirah", "Syafiq",
    "Zulaikha",
];

#[rustfmt::skip]
static MALAY_FAMILY: &[&str] = &[
    "Abdullah", "Ahmad", "Bakar", "Hamid", "Hassan", "Ibrahim", "Ismail", "Jamal", "Kassim",
    "Latiff", "Mansor", "Osman", "Rahim", "Rashid", "Salleh", "Samad", "Sulaiman", "Yusof",
    "Zainal", "Zakaria",
];

#[rustfmt::skip]
static TAMIL_GIVEN: &[&str] = &[
    "Aravind", "Anjali", "Deepa", "Dinesh", "Divya", "Harini", "Karthik", "Kavitha", "Lavanya",
    "Meena", "Naveen", "Nisha", "Pravin", "Ravi", "Revathi", "Sanjay", "Shalini", "Suresh",
    "Vikram", "Yamini",
];

#[rustfmt::skip]
static TAMIL_FAMILY: &[&str] = &[
    "Balakrishnan", "Chandran", "Devan", "Ganesan", "Gopal", "Krishnan", "Kumar", "Maniam", "Menon",
    "Muthu", "Nair", "Pillai", "Raja", "Rajan", "Ramasamy", "Raman", "Selvam", "Subramaniam",
    "Suppiah", "Velu",
];

#[rustfmt::skip]
static CN_GIVEN: &[&str] = &[
    "Bingbin", "Chenxi", "Fangyu", "Guoliang", "Haoran", "Haoyu", "Hongmei", "Jiahao", "Jialin",
    "Jianing", "Jiaqi", "Jingwen", "Jinhai", "Junhao", "Kexin", "Lihua", "Mengyao", "Mingxuan",
    "Muchen", "Peiling", "Qingyun", "Ruoxi", "Ruihan", "Shaohua", "Shihan", "Shuang", "Siyuan",
    "Tianyu", "Weimin", "Wenbo", "Xiaodan", "Xiaohui", "Xinyi", "Xueying", "Yanling", "Yichen",
    "Yilin", "Yingjie", "Yuchen", "Yutong", "Yuxuan", "Zhenhua", "Zhihao", "Zihan", "Zixuan",
];

#[rustfmt::skip]
static CN_FAMILY: &[&str] = &[
    "Bai", "Cai", "Cao", "Chen", "Cheng", "Deng", "Ding", "Dong", "Du", "Fan", "Feng", "Gao", "Guo",
    "Han", "He", "Hu", "Huang", "Jiang", "Jin", "Li", "Liang", "Lin", "Liu", "Lu", "Luo", "Ma",
    "Pan", "Peng", "Qian", "Shen", "Shi", "Song", "Su", "Sun", "Tang", "Tian", "Wang", "Wu", "Xiao",
    "Xie", "Xu", "Yan", "Yang", "Ye", "Yu", "Yuan", "Zeng", "Zhang", "Zhao", "Zheng", "Zhou", "Zhu",
];

#[rustfmt::skip]
static MODELS_US: &[&str] = &[
    "iPhone 12", "iPhone 13", "iPhone 13 mini", "iPhone 14", "iPhone 14 Pro", "iPhone 15",
    "iPhone 15 Pro", "iPhone 16", "iPhone 16 Pro Max", "iPhone SE", "iPad Air", "iPad mini",
    "Galaxy A15", "Galaxy A54", "Galaxy S22", "Galaxy S23", "Galaxy S24 Ultra", "Galaxy Z Flip5",
    "Pixel 7a", "Pixel 8", "Pixel 9 Pro", "moto g power", "moto g stylus", "OnePlus 12",
];

#[rustfmt::skip]
static MODELS_EU: &[&str] = &[
    "iPhone 12", "iPhone 13", "iPhone 14", "iPhone 15", "iPhone 16", "iPhone SE", "iPad Air",
    "Galaxy A14", "Galaxy A34", "Galaxy A54", "Galaxy S22", "Galaxy S23", "Galaxy S24",
    "Galaxy Tab A9", "Pixel 7a", "Pixel 8", "Redmi Note 12", "Redmi Note 13", "Xiaomi 13T",
    "Fairphone 5", "Nothing Phone (2)", "Nokia G42",
];

#[rustfmt::skip]
static MODELS_ASIA: &[&str] = &[
    "iPhone 13", "iPhone 14 Pro", "iPhone 15", "iPhone 15 Pro Max", "iPhone 16 Pro", "iPad mini",
    "Galaxy A55", "Galaxy S23", "Galaxy S24 Ultra", "Galaxy Z Fold5", "OPPO Find X7", "OPPO Reno11",
    "Redmi Note 13", "Xiaomi 14", "vivo V30", "Pixel 8",
];

#[rustfmt::skip]
static MODELS_CHINA: &[&str] = &[
    "HUAWEI Mate 60 Pro", "HUAWEI P60", "HUAWEI nova 12", "HONOR 90", "HONOR Magic6", "Xiaomi 13",
    "Xiaomi 14", "Redmi K70", "Redmi Note 13", "OPPO Find X7", "OPPO Reno11", "vivo X100",
    "vivo S18", "iQOO 12", "OnePlus 12", "iPhone 13", "iPhone 14", "iPhone 15 Pro", "iPad Air",
];
